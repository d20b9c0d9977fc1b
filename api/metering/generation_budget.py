"""Tells the generation jobs that wait how many users the budget of their tenant allows them to score."""

from datetime import datetime

from api.database.engine import Pool
from api.metering.repository import standings_of


async def allow_generations(pool: Pool, now: datetime) -> None:
    """Tell each waiting generation job how many users the tenant's budget allows it to score, after those before it.

    The pipeline compares that with the job's users when it starts. Jobs that it is writing are left for the next call.
    """
    async with pool.connection() as connection:
        tenants = [row[0] for row in await (await connection.execute(_GENERATING)).fetchall()]
    if not tenants:
        return
    found = await standings_of(pool, tenants, now)
    left = {
        tenant_id: None if (budget := each.terms.refused_from) is None else max(0, budget - each.units)
        for tenant_id, each in found.items()
    }
    async with pool.connection() as connection:
        await connection.execute(_ALLOW, [list(left), list(left.values())])


_GENERATING = "SELECT DISTINCT tenant_id FROM generation_jobs WHERE status = 'processing'"

_ALLOW = """
WITH budget AS (
    SELECT * FROM unnest(%s::text[], %s::bigint[]) AS given (tenant_id, units)
), finished AS (
    SELECT tenant_id, sum(LEAST(users_scored, users_done) - users_metered) AS units FROM generation_jobs
    WHERE status <> 'processing' AND users_metered < LEAST(users_scored, users_done) GROUP BY tenant_id
), waiting AS (
    SELECT job.tenant_id, job.id, budget.units - coalesce(finished.units, 0)
        - (LEAST(job.users_scored, job.users_done) - job.users_metered)
        - coalesce(sum(greatest(job.users_total, job.users_done) - job.users_metered) OVER (
            PARTITION BY job.tenant_id ORDER BY job.created_at, job.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS units
    FROM generation_jobs AS job
    JOIN budget ON budget.tenant_id = job.tenant_id
    LEFT JOIN finished ON finished.tenant_id = job.tenant_id
    WHERE job.status = 'processing'
), free AS (
    SELECT tenant_id, id FROM generation_jobs WHERE status = 'processing' FOR UPDATE SKIP LOCKED
), told AS (
    SELECT free.tenant_id, free.id, CASE WHEN waiting.units IS NOT NULL THEN greatest(0, waiting.units) END AS units
    FROM waiting JOIN free ON free.tenant_id = waiting.tenant_id AND free.id = waiting.id
)
UPDATE generation_jobs AS job SET users_allowed = told.units FROM told
WHERE job.tenant_id = told.tenant_id AND job.id = told.id AND job.users_allowed IS DISTINCT FROM told.units
"""
