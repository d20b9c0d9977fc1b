"""`/api/settings`."""

from typing import Any

from fastapi import APIRouter

from api.database.session import Session
from api.http.principal import CurrentAdmin
from api.settings import service
from api.settings.schemas import PipelineSettingsOut
from configs.tenant_pipeline import TenantPipeline

router = APIRouter(prefix="/api/settings", tags=["settings"])
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}


@router.get("/pipeline", summary="Get the settings of the pipeline", responses=_FORBIDDEN)
async def get_pipeline_settings(admin: CurrentAdmin, session: Session) -> PipelineSettingsOut:
    """Budgets, schedules, thresholds, the metric that decides, floors and alerts of this tenant. Settings that nobody
    has set have their defaults."""
    return await service.pipeline_settings(session, admin.scope)


@router.put("/pipeline", summary="Replace the settings of the pipeline", responses=_FORBIDDEN)
async def put_pipeline_settings(body: TenantPipeline, admin: CurrentAdmin, session: Session) -> PipelineSettingsOut:
    """Replaces all settings: those that are left out get their defaults. The pipeline uses the new ones from its next
    step on. The secret of a webhook stays where none is sent; without a webhook there is none."""
    return await service.replace_pipeline_settings(session, admin.scope, body)
