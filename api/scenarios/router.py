"""`/api/scenarios`."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response

from api.database.engine import Database
from api.database.session import CurrentDatabase, Session, reading_first, transaction
from api.http.batches import count_rows
from api.http.principal import CurrentAdmin, UserPrincipal
from api.http.schemas import Page, Paging, PathId
from api.idempotency.middleware import never_recorded
from api.scenarios import service
from api.scenarios.preview import preview, recipes_of, warnings_of
from api.scenarios.repository import Found
from api.scenarios.schemas import (
    NewScenario,
    Preview,
    PreviewRequest,
    RecipeWarning,
    SavedScenario,
    ScenarioOut,
    ScenarioReplacement,
    ScenarioStatus,
    ScenarioVersionOut,
)
from api.scenarios.trials import CurrentTrials, RecipeTrials

router = APIRouter(prefix="/api/scenarios", tags=["scenarios"])
_Responses = dict[int | str, dict[str, Any]]
_FORBIDDEN: _Responses = {403: {"description": "Forbidden"}}
_NOT_FOUND: _Responses = _FORBIDDEN | {404: {"description": "There is no such scenario"}}
_NO_ITEM: _Responses = _FORBIDDEN | {404: {"description": "There is no such scenario, or no such item"}}
_CONFLICT: _Responses = _FORBIDDEN | {409: {"description": "The id is taken, or the tenant has 200 scenarios"}}
Publish = Annotated[
    bool, Query(description="false: a live scenario goes on with the version of before, and the new one waits")
]


@router.get("", summary="List scenarios", responses=_FORBIDDEN)
async def list_scenarios(
    admin: CurrentAdmin,
    session: Session,
    paging: Paging,
    status: Annotated[ScenarioStatus | None, Query(description="Only scenarios with this status")] = None,
) -> Page[ScenarioOut]:
    """The newest first, each with the newest version of its recipe."""
    found, total = await service.list_scenarios(session, admin.scope, status, paging.offset, paging.page_size)
    data = [_shown(each) for each in found]
    return Page[ScenarioOut](data=data, total=total, page=paging.page, page_size=paging.page_size)


@router.post("", status_code=201, summary="Create a scenario", responses=_CONFLICT)
async def create_scenario(
    body: NewScenario, admin: CurrentAdmin, session: Session, database: CurrentDatabase, trials: CurrentTrials
) -> SavedScenario:
    """A draft, unless `status` says otherwise. A tenant has at most 200 scenarios."""
    warnings = await _warnings(database, trials, admin, body)
    return _saved(await service.create_scenario(session, admin.scope, body), warnings)


@router.get("/{scenario_id}", summary="Get a scenario", responses=_NOT_FOUND)
async def get_scenario(scenario_id: PathId, admin: CurrentAdmin, session: Session) -> ScenarioOut:
    return _shown(await service.get_scenario(session, admin.scope, scenario_id))


@router.put("/{scenario_id}", summary="Replace a scenario", responses=_NOT_FOUND)
async def replace_scenario(
    scenario_id: PathId,
    body: ScenarioReplacement,
    admin: CurrentAdmin,
    session: Session,
    database: CurrentDatabase,
    trials: CurrentTrials,
    publish: Publish = True,
) -> SavedScenario:
    """Replaces name and recipe: what is left out of the recipe gets its default. Another recipe makes a new version."""
    async with transaction(database) as reading:
        await service.get_scenario(reading, admin.scope, scenario_id)
    warnings = await _warnings(database, trials, admin, body)
    return _saved(await service.replace_scenario(session, admin.scope, scenario_id, body, publish=publish), warnings)


@router.patch("/{scenario_id}", summary="Change parts of a scenario", responses=_NOT_FOUND)
async def patch_scenario(
    scenario_id: PathId,
    body: Annotated[dict[str, Any], Body(examples=[{"status": "live"}])],
    admin: CurrentAdmin,
    session: Session,
    database: CurrentDatabase,
    trials: CurrentTrials,
    publish: Publish = True,
) -> SavedScenario:
    """Members that are named are replaced as a whole, null stands for the default, and all others do not change."""
    async with transaction(database) as reading:
        found = await service.get_scenario(reading, admin.scope, scenario_id)
    warnings = await _warnings(database, trials, admin, service.patched(found, body))
    return _saved(await service.patch_scenario(session, admin.scope, scenario_id, body, publish=publish), warnings)


@router.delete("/{scenario_id}", status_code=204, summary="Delete a scenario", responses=_NOT_FOUND)
async def delete_scenario(scenario_id: PathId, admin: CurrentAdmin, session: Session) -> Response:
    """It goes with all its versions. Archive it instead where its figures are still to be read."""
    await service.delete_scenario(session, admin.scope, scenario_id)
    return Response(status_code=204)


@router.get("/{scenario_id}/versions", summary="List the versions of a scenario", responses=_NOT_FOUND)
async def list_scenario_versions(
    scenario_id: PathId, admin: CurrentAdmin, session: Session, paging: Paging
) -> Page[ScenarioVersionOut]:
    """The newest first; the last 100 are kept. To go back to one, send its recipe again."""
    found, total = await service.list_versions(session, admin.scope, scenario_id, paging.offset, paging.page_size)
    data = [
        ScenarioVersionOut.stored({**each.recipe, "version": each.version, "createdAt": each.created_at})
        for each in found
    ]
    return Page[ScenarioVersionOut](data=data, total=total, page=paging.page, page_size=paging.page_size)


@router.post(
    "/{scenario_id}/preview",
    summary="See a scenario's lists",
    responses=_NO_ITEM,
    response_model=Preview,
    dependencies=[Depends(never_recorded)],
)
async def preview_scenario(
    scenario_id: PathId,
    body: PreviewRequest,
    request: Request,
    admin: CurrentAdmin,
    database: CurrentDatabase,
    trials: CurrentTrials,
) -> Response:
    """The lists of up to 100 users, or of items like up to 100 items, by a draft and by the live version, what each
    rule moves, and why items are out.

    It costs no units, and nothing is recorded as shown. In the rate limit each started 50 users or items count as one
    request.
    """
    await count_rows(request, len(body.ids))
    async with reading_first(database) as session:
        newest, live = await recipes_of(session, admin.scope, scenario_id)
    return Response(await preview(trials, admin.scope, body, newest, live), media_type="application/json")


async def _warnings(
    database: Database, trials: RecipeTrials, admin: UserPrincipal, new: ScenarioReplacement
) -> list[RecipeWarning]:
    if new.status == "archived":  # no request can name it, and a trial of its recipe takes a while
        return []
    return await warnings_of(trials, database, admin.scope, new.recipe())


def _saved(found: Found, warnings: list[RecipeWarning]) -> SavedScenario:
    return SavedScenario.stored({**_document(found), "warnings": warnings})


def _shown(found: Found) -> ScenarioOut:
    return ScenarioOut.stored(_document(found))


def _document(found: Found) -> dict[str, Any]:
    row, newest = found
    return {
        **newest.recipe,
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "status": row.status,
        "liveVersion": row.live_version,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
    }
