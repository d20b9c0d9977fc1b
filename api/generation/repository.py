"""Reads and writes generation jobs."""
# ruff: noqa: S608 -- the numbers in queries are of this code base

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.generation.tables import GenerationJob
from api.tenants.problems import TenantGone
from feature_store import columns as c
from feature_store.online import ALL_INTERACTIONS

SAMPLE = 1_000
"""The sample of users that estimates how many are new. Counting all would read the interactions of every user."""
EARLIER_JOBS = 5


@dataclass(frozen=True, slots=True)
class JobSpeed:
    """The speed of the tenant's latest completed jobs: seconds until a job starts, and seconds per user."""

    wait_seconds: float
    user_seconds: float


class GenerationRepository:
    """The generation jobs of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def hold(self) -> None:
        """Make others who add a job of this tenant wait until the transaction ends."""
        await (await self._session.connection()).execute(text(_HOLD), {"tenant": self._tenant_id})

    async def add(self, algorithm: str, segment: str, count: int, users: int, allowed: int | None) -> UUID:
        """Add a job and return its id. allowed: how many users the budget allows it to score. Raises TenantGone."""
        job = {"id": uuid4(), "algorithm": algorithm, "segment": segment, "count": count, "users": users}
        job["allowed"] = allowed
        row = await self._row(_ADD, **job)
        if row is None:
            raise TenantGone
        id_: UUID = row[0]
        return id_

    async def find(self, id_: UUID) -> GenerationJob | None:
        return await self._session.get(GenerationJob, (self._tenant_id, id_))

    async def expected_users(self, segment: str, *, exactly: bool = False) -> int:
        """How many users are in the segment now. The `new` ones are estimated, except where they are wanted exactly."""
        return await self._number(_NEW_USERS if exactly and segment == "new" else _EXPECTED[segment])

    async def units_pending(self) -> int:
        """The units that the tenant's jobs will still cost: of users who are left, and of those not metered yet."""
        return await self._number(_PENDING)

    async def users_ahead(self) -> int:
        """The number of users that are left in the tenant's unfinished jobs."""
        return await self._number(_AHEAD)

    async def speed(self, algorithm: str) -> JobSpeed | None:
        """The speed of the latest jobs of this family, else of any family; None before the first job."""
        row = await self._row(_SPEED, algorithm=algorithm, jobs=EARLIER_JOBS)
        return None if row is None else JobSpeed(float(row[0]), float(row[1]))

    async def _number(self, query: str) -> int:
        row = await self._row(query)
        if row is None:
            raise LookupError(query)
        return int(row[0])

    async def _row(self, query: str, **parameters: Any) -> tuple[Any, ...] | None:
        connection = await self._session.connection()
        result = await connection.execute(text(query), {"tenant": self._tenant_id, **parameters})
        row = result.one_or_none()
        return None if row is None else tuple(row)


_ADD = """
INSERT INTO generation_jobs (tenant_id, id, algorithm, user_segment, count, users_total, users_allowed)
SELECT id, :id, :algorithm, :segment, :count, :users, :allowed FROM tenants WHERE id = :tenant AND deleted_at IS NULL
RETURNING id
"""

_USERS = "users WHERE tenant_id = :tenant AND is_active"
_EXPECTED = {
    "all": f"SELECT count(*) FROM {_USERS}",
    "active": f"SELECT count(*) FROM {_USERS} AND last_active_at >= now() - interval '{c.ACTIVE_DAYS} days'",
    "new": f"""
        SELECT round((SELECT count(*) FROM {_USERS}) * coalesce(avg(CASE WHEN (
            SELECT count(*) FROM (
                SELECT FROM {ALL_INTERACTIONS} AS event
                WHERE event.tenant_id = :tenant AND event.user_id = known.id LIMIT {c.NEW_BELOW}
            ) AS counted
        ) < {c.NEW_BELOW} THEN 1 ELSE 0 END), 0))::bigint
        FROM (SELECT id FROM {_USERS} LIMIT {SAMPLE}) AS known
    """,
}

_NEW_USERS = f"""
SELECT count(*) FROM {_USERS} AND (
    SELECT count(*) FROM (
        SELECT FROM {ALL_INTERACTIONS} AS event
        WHERE event.tenant_id = :tenant AND event.user_id = users.id LIMIT {c.NEW_BELOW}
    ) AS counted
) < {c.NEW_BELOW}
"""

_HOLD = "SELECT pg_advisory_xact_lock(hashtextextended('generation budget ' || :tenant, 0))"

_PENDING = """
SELECT coalesce(sum(
    CASE status WHEN 'processing' THEN greatest(users_total, users_done) - users_metered
    ELSE LEAST(users_scored, users_done) - users_metered END
), 0)::bigint
FROM generation_jobs
WHERE tenant_id = :tenant AND (status = 'processing' OR users_metered < LEAST(users_scored, users_done))
"""

_AHEAD = """
SELECT coalesce(sum(users_total - users_done), 0)::bigint FROM generation_jobs
WHERE tenant_id = :tenant AND status = 'processing'
"""

# By family, since one may take a hundred times as long as another.
_SPEED = """
WITH earlier AS (
    SELECT algorithm = :algorithm AS same, users_done,
        extract(epoch FROM started_at - created_at)::float8 AS waited,
        extract(epoch FROM finished_at - started_at)::float8 AS worked
    FROM generation_jobs
    WHERE tenant_id = :tenant AND status = 'completed' AND users_done > 0
    ORDER BY algorithm = :algorithm DESC, finished_at DESC LIMIT :jobs
)
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY waited), sum(worked) / sum(users_done)
FROM earlier WHERE same = (SELECT bool_or(same) FROM earlier) HAVING count(*) > 0
"""
