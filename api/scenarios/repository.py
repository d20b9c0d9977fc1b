"""The rows of scenarios."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, text, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.scenarios.tables import ScenarioRow, ScenarioVersionRow
from api.tenants.problems import TenantGone
from api.tenants.tables import Tenant

Found = tuple[ScenarioRow, ScenarioVersionRow]
"""A scenario, and one version of its recipe."""


class ScenarioRepository:
    """The scenarios of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id
        self._own = col(ScenarioRow.tenant_id) == scope.tenant_id

    async def begin_change(self) -> None:
        """Call it before anything is written: `LiveScenarios` reads again what it has kept of this tenant.

        Until the transaction ends, no other changes the tenant's scenarios. Raises TenantGone.
        """
        statement = (
            update(Tenant)
            .where(col(Tenant.id) == self._tenant_id, col(Tenant.deleted_at).is_(None))
            .values(scenario_edition=Tenant.scenario_edition + 1)
        )
        if (await self._session.exec(statement)).rowcount == 0:
            raise TenantGone

    async def count(self) -> int:
        """How many scenarios the tenant has, archived ones included."""
        return (await self._session.exec(select(func.count()).select_from(ScenarioRow).where(self._own))).one()

    async def find(self, scenario_id: str) -> Found | None:
        """The scenario and its newest version."""
        statement = _WITH_NEWEST.where(self._own, col(ScenarioRow.id) == scenario_id)
        found = (await self._session.exec(statement)).one_or_none()
        return None if found is None else (found[0], found[1])

    async def page(self, status: str | None, offset: int, limit: int) -> tuple[list[Found], int]:
        """A page of scenarios with their newest versions, the newest scenarios first, and how many there are."""
        condition = [self._own] if status is None else [self._own, col(ScenarioRow.status) == status]
        total = (await self._session.exec(select(func.count()).select_from(ScenarioRow).where(*condition))).one()
        newest = (col(ScenarioRow.created_at).desc(), col(ScenarioRow.id))
        statement = _WITH_NEWEST.where(*condition).order_by(*newest).offset(offset).limit(limit)
        return [(row, version) for row, version in await self._session.exec(statement)], total

    async def version(self, scenario_id: str, version: int) -> ScenarioVersionRow | None:
        """One version of a scenario."""
        return await self._session.get(ScenarioVersionRow, (self._tenant_id, scenario_id, version))

    async def versions(self, scenario_id: str, offset: int, limit: int) -> tuple[Sequence[ScenarioVersionRow], int]:
        """A page of a scenario's versions, the newest first, and how many are kept."""
        own = self._versions_of(scenario_id)
        total = (await self._session.exec(select(func.count()).select_from(ScenarioVersionRow).where(*own))).one()
        statement = select(ScenarioVersionRow).where(*own).order_by(col(ScenarioVersionRow.version).desc())
        return (await self._session.exec(statement.offset(offset).limit(limit))).all(), total

    async def add(self, scenario: ScenarioRow, recipe: dict[str, Any]) -> None:
        """Add a scenario with its first version."""
        self._session.add(scenario)
        await self._session.flush()
        await self.add_version(scenario, recipe)

    async def add_version(self, scenario: ScenarioRow, recipe: dict[str, Any]) -> ScenarioVersionRow:
        """Add the version that the scenario's row names as its newest, and return it."""
        row = ScenarioVersionRow(
            tenant_id=self._tenant_id, scenario_id=scenario.id, version=scenario.version, recipe=recipe
        )
        self._session.add(row)
        await self._session.flush()
        return row

    async def drop_versions(self, scenario: ScenarioRow, keep: int) -> None:
        """Delete all versions but the newest `keep` and the live one."""
        old = [*self._versions_of(scenario.id), col(ScenarioVersionRow.version) <= scenario.version - keep]
        if scenario.live_version is not None:
            old.append(col(ScenarioVersionRow.version) != scenario.live_version)
        await self._session.exec(delete(ScenarioVersionRow).where(*old))

    async def save(self, scenario: ScenarioRow) -> None:
        """Write what was changed on the scenario's row, and when."""
        scenario.updated_at = func.now()  # type: ignore[assignment]
        self._session.add(scenario)
        await self._session.flush()
        await self._session.refresh(scenario)

    async def delete(self, scenario_id: str) -> bool:
        """Delete a scenario with its versions. Returns whether there was one."""
        statement = delete(ScenarioRow).where(self._own, col(ScenarioRow.id) == scenario_id)
        return (await self._session.exec(statement)).rowcount == 1

    async def active_users(self, limit: int) -> list[str]:
        """Users with the newest interactions, of which the last few thousand are looked at."""
        connection = await self._session.connection()
        return list((await connection.execute(_ACTIVE, {"tenant": self._tenant_id, "most": limit})).scalars())

    def _versions_of(self, scenario_id: str) -> list[Any]:
        return [
            col(ScenarioVersionRow.tenant_id) == self._tenant_id,
            col(ScenarioVersionRow.scenario_id) == scenario_id,
        ]


_ACTIVE = text(
    """
    SELECT user_id FROM (
        SELECT user_id, occurred_at FROM interactions WHERE tenant_id = :tenant ORDER BY occurred_at DESC LIMIT 5000
    ) AS newest
    GROUP BY user_id ORDER BY max(occurred_at) DESC LIMIT :most
    """
)

_WITH_NEWEST = select(ScenarioRow, ScenarioVersionRow).join(
    ScenarioVersionRow,
    (col(ScenarioVersionRow.tenant_id) == col(ScenarioRow.tenant_id))
    & (col(ScenarioVersionRow.scenario_id) == col(ScenarioRow.id))
    & (col(ScenarioVersionRow.version) == col(ScenarioRow.version)),
)
