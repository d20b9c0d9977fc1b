"""Creates, changes and deletes scenarios. Each change of a recipe makes a version."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.service import last_scenario_version, note_scenario
from api.database.scope import TenantScope
from api.http.problems import Conflict, NotFound
from api.scenarios.recipe import Recipe
from api.scenarios.repository import Found, ScenarioRepository
from api.scenarios.schemas import NewScenario, ScenarioReplacement
from api.scenarios.tables import ScenarioRow, ScenarioVersionRow

MAX_SCENARIOS = 200
"""Of a tenant, archived ones included."""
MAX_VERSIONS = 100
"""Versions that are kept of a scenario; the oldest go first, and the live one never."""
NO_SCENARIO = "There is no such scenario"


async def create_scenario(session: AsyncSession, scope: TenantScope, new: NewScenario) -> Found:
    """Raises Conflict where the id is taken or the tenant has 200 scenarios.

    Where a deleted scenario had the id, versions continue from its last one, so that `X-Scenario` names one recipe.
    """
    recipe = _stored(new.recipe())
    scenarios = ScenarioRepository(session, scope)
    await scenarios.begin_change()
    scenario_id = new.id or str(uuid4())
    if await scenarios.find(scenario_id) is not None:
        raise Conflict("There is a scenario with this id already")
    if await scenarios.count() >= MAX_SCENARIOS:
        raise Conflict(f"A tenant has at most {MAX_SCENARIOS} scenarios: delete one first")
    status = new.status or "draft"
    version = 1 if new.id is None else await last_scenario_version(session, scope, scenario_id) + 1
    row = ScenarioRow(
        tenant_id=scope.tenant_id,
        id=scenario_id,
        name=new.name.strip(),
        status=status,
        version=version,
        live_version=version if status == "live" else None,
    )
    await scenarios.add(row, recipe)
    await note_scenario(session, scope, "scenario.created", row.id, {"version": version, "status": status})
    return await _found(scenarios, scenario_id)


async def list_scenarios(
    session: AsyncSession, scope: TenantScope, status: str | None, offset: int, limit: int
) -> tuple[list[Found], int]:
    """A page of the tenant's scenarios, the newest first, and how many there are."""
    return await ScenarioRepository(session, scope).page(status, offset, limit)


async def get_scenario(session: AsyncSession, scope: TenantScope, scenario_id: str) -> Found:
    """The scenario and its newest version. Raises NotFound."""
    return await _found(ScenarioRepository(session, scope), scenario_id)


async def list_versions(
    session: AsyncSession, scope: TenantScope, scenario_id: str, offset: int, limit: int
) -> tuple[list[ScenarioVersionRow], int]:
    """A page of a scenario's versions, the newest first, and how many are kept. Raises NotFound."""
    scenarios = ScenarioRepository(session, scope)
    await _found(scenarios, scenario_id)
    found, total = await scenarios.versions(scenario_id, offset, limit)
    return list(found), total


async def replace_scenario(
    session: AsyncSession, scope: TenantScope, scenario_id: str, new: ScenarioReplacement, *, publish: bool
) -> Found:
    """Replace name, status and recipe. Raises NotFound.

    publish: whether a live scenario goes on with the new recipe. False: requests get the version of before.
    """
    scenarios = ScenarioRepository(session, scope)
    await scenarios.begin_change()
    return await _change(session, scope, await _found(scenarios, scenario_id), new, publish=publish)


async def patch_scenario(
    session: AsyncSession, scope: TenantScope, scenario_id: str, changes: Mapping[str, Any], *, publish: bool
) -> Found:
    """Replace the members that are named; see `replace_scenario`.

    Raises NotFound, and RequestValidationError where the whole is not valid.
    """
    scenarios = ScenarioRepository(session, scope)
    await scenarios.begin_change()
    found = await _found(scenarios, scenario_id)
    return await _change(session, scope, found, patched(found, changes), publish=publish)


async def _change(
    session: AsyncSession, scope: TenantScope, found: Found, new: ScenarioReplacement, *, publish: bool
) -> Found:
    scenarios = ScenarioRepository(session, scope)
    row, newest = found
    recipe = _stored(new.recipe())
    before = (row.name, row.status, row.live_version)
    changed = sorted(name for name in recipe | newest.recipe if recipe.get(name) != newest.recipe.get(name))
    row.name, row.status = new.name.strip(), new.status or row.status
    row.version += bool(changed)
    if row.status != "live":
        row.live_version = None
    elif publish or row.live_version is None:
        row.live_version = row.version
    if changed:
        newest = await scenarios.add_version(row, recipe)
    if changed or before != (row.name, row.status, row.live_version):
        await scenarios.save(row)
        await scenarios.drop_versions(row, MAX_VERSIONS)
        detail = {"version": row.version, "status": row.status, "liveVersion": row.live_version, "changed": changed}
        await note_scenario(session, scope, "scenario.changed", row.id, detail)
    return row, newest


async def delete_scenario(session: AsyncSession, scope: TenantScope, scenario_id: str) -> None:
    """Delete a scenario with all its versions. Raises NotFound."""
    scenarios = ScenarioRepository(session, scope)
    await scenarios.begin_change()
    if not await scenarios.delete(scenario_id):
        raise NotFound(NO_SCENARIO)
    await note_scenario(session, scope, "scenario.deleted", scenario_id, {})


def patched(found: Found, changes: Mapping[str, Any]) -> ScenarioReplacement:
    """The scenario with the members that are named replaced; null stands for the default.

    Raises RequestValidationError where the whole is not valid.
    """
    row, newest = found
    merged = {**newest.recipe, "name": row.name, **changes}
    try:
        return ScenarioReplacement.model_validate({name: value for name, value in merged.items() if value is not None})
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        ) from error


def _stored(recipe: Recipe) -> dict[str, Any]:
    """The recipe as it is stored."""
    return recipe.model_dump(mode="json", by_alias=True)


async def _found(scenarios: ScenarioRepository, scenario_id: str) -> Found:
    found = await scenarios.find(scenario_id)
    if found is None:
        raise NotFound(NO_SCENARIO)
    return found
