"""`/api/settings`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

from api.alerts.delivery import AlertDelivery
from api.database.session import Session
from api.http.outgoing import OutgoingClient
from api.http.principal import CurrentAdmin
from api.settings import service
from api.settings.schemas import PipelineSettingsOut, RecommendationSettings
from configs.tenant_pipeline import TenantPipeline


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    client = OutgoingClient()
    try:
        async with AlertDelivery(app.state.database.pool, client, app.state.configuration.mail).running():
            yield
    finally:
        await client.close()


router = APIRouter(prefix="/api/settings", tags=["settings"], lifespan=_lifespan)
_FORBIDDEN: dict[int | str, dict[str, Any]] = {403: {"description": "Forbidden"}}


@router.get("/pipeline", summary="Get the settings of the pipeline", responses=_FORBIDDEN)
async def get_pipeline_settings(admin: CurrentAdmin, session: Session) -> PipelineSettingsOut:
    """Budgets, schedules, thresholds, the metric that decides, floors and alerts of this tenant. Settings that nobody
    has set have their defaults."""
    return await service.current_settings(session, admin.scope)


@router.put("/pipeline", summary="Replace the settings of the pipeline", responses=_FORBIDDEN)
async def put_pipeline_settings(body: TenantPipeline, admin: CurrentAdmin, session: Session) -> PipelineSettingsOut:
    """Replaces all settings: those that are left out get their defaults. The pipeline uses the new ones from its next
    step on. The secret of a webhook stays where none is sent; without a webhook there is none."""
    return await service.replace_settings(session, admin.scope, body)


@router.get("/recommendations", summary="Get the settings of recommendations", responses=_FORBIDDEN)
async def get_recommendation_settings(admin: CurrentAdmin, session: Session) -> RecommendationSettings:
    """The share of users that are held out from the models; by default none are."""
    return await service.recommendation_settings(session, admin.scope)


@router.put("/recommendations", summary="Replace the settings of recommendations", responses=_FORBIDDEN)
async def put_recommendation_settings(
    body: RecommendationSettings, admin: CurrentAdmin, session: Session
) -> RecommendationSettings:
    """Replaces all settings: those that are left out get their defaults. They hold from the next request on."""
    return await service.replace_recommendation_settings(session, admin.scope, body)
