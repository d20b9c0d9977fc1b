"""The rows that are too old, and how each table gives them up.

Rows of all tenants together are deleted where nothing counts them. Where totals count them, a part is of one tenant: it
locks the tenant and its totals first, as every writer of these does, and adds what it deletes to `expired_counts`.
"""
# ruff: noqa: S608 -- statements are made of constants of this module; values are parameters

import asyncio
from typing import Any

from api.database.engine import Pool
from api.database.parts import PART_ROWS, PAUSE_SECONDS, delete_in_parts
from configs.retention import RetentionSettings


async def delete_expired_rows(pool: Pool, settings: RetentionSettings) -> dict[str, int]:
    """Delete the rows of all tenants that are too old, and return how many there were, by table."""
    days = {
        "audit_entries": settings.audit_days,
        "alerts": settings.alert_days,
        "stripe_events": settings.stripe_event_days,
        "impressions": settings.impression_days,
        "recommendations": settings.recommendation_days,
        "generation_jobs": settings.recommendation_days,
    }
    deleted = {}
    for table, condition in _OF_ALL_TENANTS.items():
        deleted[table] = await delete_in_parts(pool, _delete_of_all(table, condition), {"days": days[table]})
    for table in _OF_A_TENANT:
        deleted[table] = 0
        for tenant in await _tenants_with_expired(pool, table, days[table]):
            deleted[table] += await _delete_of_tenant(pool, table, {"tenant": tenant, "days": days[table]})
    return deleted


async def _tenants_with_expired(pool: Pool, table: str, days: int) -> list[str]:
    async with pool.connection() as connection:
        return [row[0] for row in await (await connection.execute(_due(table), {"days": days})).fetchall()]


async def _delete_of_tenant(pool: Pool, table: str, parameters: dict[str, Any]) -> int:
    deleted = 0
    while True:
        async with pool.connection() as connection, connection.transaction():
            if (await connection.execute(_LOCK_TENANT, parameters)).rowcount == 0:
                return deleted
            await connection.execute(_LOCK_TOTALS, parameters)
            cursor = await connection.execute(_OF_A_TENANT[table], {**parameters, "rows": PART_ROWS})
            row = await cursor.fetchone()
        part = 0 if row is None else int(row[0])
        deleted += part
        if part < PART_ROWS:
            return deleted
        await asyncio.sleep(PAUSE_SECONDS)


_AGE = "now() - make_interval(days => %(days)s)"

_OF_ALL_TENANTS = {
    "audit_entries": f"at < {_AGE}",
    "alerts": f"created_at < {_AGE}",
    "stripe_events": f"handled_at < {_AGE}",
}


def _delete_of_all(table: str, condition: str) -> str:
    return f"""
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {table} WHERE {condition} LIMIT %(rows)s FOR UPDATE SKIP LOCKED
    ))
    """


# A deletion of the tenant, and a count of its rows, happen wholly before or after.
_LOCK_TENANT = "SELECT FROM tenants WHERE id = %(tenant)s AND deleted_at IS NULL FOR SHARE"
_LOCK_TOTALS = "SELECT FROM analytics_totals WHERE tenant_id = %(tenant)s FOR UPDATE"

_TIME = {"impressions": "created_at", "recommendations": "created_at", "generation_jobs": "finished_at"}


def _due(table: str) -> str:
    """Each tenant's oldest rows are looked up by the index of its times."""
    return f"""
    SELECT tenants.id FROM tenants
    CROSS JOIN LATERAL (
        SELECT FROM {table} WHERE tenant_id = tenants.id AND {_TIME[table]} < {_AGE} LIMIT 1
    ) AS expired
    WHERE tenants.deleted_at IS NULL ORDER BY tenants.id
    """


def _keep_count(column: str) -> str:
    """Adds the column of the same name of the rows in `gone` to the tenant's row of `expired_counts`."""
    return f"""
    INSERT INTO expired_counts AS known (tenant_id, {column})
    SELECT %(tenant)s, sum({column}) FROM gone HAVING count(*) > 0
    ON CONFLICT (tenant_id) DO UPDATE SET {column} = known.{column} + excluded.{column}
    """


# A trigger subtracts impressions that were counted from the totals. Those that the pipeline has not counted yet stay.
# Pages and what was seen go by foreign keys. Attributions stay with their interactions: a figure that reads them must
# not find another answer.
_IMPRESSIONS = f"""
WITH expired AS MATERIALIZED (
    SELECT recommendation_id FROM impressions
    WHERE tenant_id = %(tenant)s AND created_at < {_AGE}
        AND xid < (SELECT next_xid FROM analytics_totals WHERE tenant_id = %(tenant)s)
    ORDER BY created_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM impressions USING expired
    WHERE impressions.tenant_id = %(tenant)s AND impressions.recommendation_id = expired.recommendation_id
    RETURNING cardinality(item_ids) AS shown
), counted AS ({_keep_count("shown")})
SELECT count(*) FROM gone
"""

_RECOMMENDATIONS = f"""
WITH expired AS MATERIALIZED (
    SELECT id FROM recommendations WHERE tenant_id = %(tenant)s AND created_at < {_AGE}
    ORDER BY created_at LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM recommendations USING expired
    WHERE recommendations.tenant_id = %(tenant)s AND recommendations.id = expired.id
    RETURNING 1
)
SELECT count(*) FROM gone
"""

# A job goes after its records, and once all that it scored is metered.
_GENERATION_JOBS = f"""
WITH expired AS MATERIALIZED (
    SELECT id FROM generation_jobs AS job
    WHERE tenant_id = %(tenant)s AND finished_at < {_AGE} AND status <> 'processing'
        AND users_metered >= LEAST(users_scored, users_done)
        AND NOT EXISTS (
            SELECT FROM recommendations AS written
            WHERE written.tenant_id = %(tenant)s AND written.job_id = job.id
        )
    LIMIT %(rows)s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM generation_jobs USING expired
    WHERE generation_jobs.tenant_id = %(tenant)s AND generation_jobs.id = expired.id
    RETURNING recommendations_written AS generated
), counted AS ({_keep_count("generated")})
SELECT count(*) FROM gone
"""

_OF_A_TENANT = {
    "impressions": _IMPRESSIONS,
    "recommendations": _RECOMMENDATIONS,
    "generation_jobs": _GENERATION_JOBS,
}
