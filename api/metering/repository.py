"""Reads and writes usage. Queries answer for many tenants at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Connection, OneConnection, Pool
from api.database.scope import TenantScope
from api.metering.terms import Entitlement, SubscriptionState, entitlement, higher_limit, plan_in_force
from api.tenants.problems import TenantGone

CycleKey = tuple[str, datetime]
"""Tenant and start of the cycle."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant's terms and usage in its current cycle."""

    terms: Entitlement
    units: int
    last_request_at: datetime | None


@dataclass(slots=True)
class Count:
    """Units to add to a cycle."""

    terms: Entitlement
    units: int
    last_request_at: datetime | None


async def standing_of(source: Pool | AsyncSession, tenant_id: str, now: datetime) -> Standing:
    """The tenant's standing in the database. Raises TenantGone."""
    pool = OneConnection(source) if isinstance(source, AsyncSession) else source
    async with pool.connection() as connection:
        found = _standings(*await _read(connection, [tenant_id], now))
    if tenant_id not in found:
        raise TenantGone
    return found[tenant_id]


async def note_terms(session: AsyncSession, scope: TenantScope, now: datetime) -> None:
    """Record the plan that is in force now in the current cycle. Of the plans of a cycle, the highest limit counts and
    the last price.

    Call it in the transaction that changes the plan, before the change and after it.
    """
    async with OneConnection(session).connection() as connection:
        await _note_terms(connection, scope.tenant_id, now)


async def standings_of(pool: Pool, tenant_ids: Sequence[str], now: datetime) -> dict[str, Standing]:
    """Standings by tenant, without deleted tenants. Corrects cycles that record another plan than the one in force."""
    async with pool.connection() as connection:
        terms, used = await _read(connection, tenant_ids, now)
        for tenant_id, cycle in used.items():
            if cycle["plan_id"] != terms[tenant_id].plan.id:
                async with connection.transaction():
                    await _note_terms(connection, tenant_id, now)
    return _standings(terms, used)


async def add_counts(pool: Pool, process: UUID, sequence: int, counts: Iterable[Count]) -> dict[CycleKey, int]:
    """Add a process's counts to their cycles, and return the cycles' new totals.

    A sequence number that is sent again is not added again, and returns nothing. Deleted tenants are left out.
    """
    async with pool.connection() as connection:
        cursor = await connection.execute(_ADD_ONCE, {"process": process, "sequence": sequence, **_columns(counts)})
        return {(tenant_id, start): units for tenant_id, start, units in await cursor.fetchall()}


async def add_generated(pool: Pool, now: datetime) -> int:
    """Add the users that generation jobs have scored since the last call; returns how many.

    The units and the jobs' `users_metered` change in one transaction. Jobs that another process holds are left for the
    next call.
    """
    async with pool.connection() as connection, connection.transaction():
        jobs = await (await connection.execute(_UNMETERED)).fetchall()
        if not jobs:
            return 0
        tenants, ids, scored = (list(column) for column in zip(*jobs, strict=True))
        terms, _ = await _read(connection, list(set(tenants)), now)
        await connection.execute(_METERED, [scored, tenants, ids])
        counts = {tenant_id: Count(own, 0, None) for tenant_id, own in terms.items()}
        for tenant_id, units in zip(tenants, scored, strict=True):
            if tenant_id in counts:
                counts[tenant_id].units += units
        await connection.execute(_ADD, _columns(counts.values()))
        return sum(count.units for count in counts.values())


async def forget_process(pool: Pool, process: UUID) -> None:
    """Delete the sequence numbers of a process that ends, and of processes that were killed long ago."""
    async with pool.connection() as connection:
        await connection.execute(_FORGET, [process])


def terms_of(row: Sequence[Any], now: datetime) -> Entitlement:
    """The terms in a row of `TERMS`, by the plan in force alone."""
    tenant_id, tenant_plan, customer, *state, cap_cents = row[:_N_TERMS]
    subscription = None if customer is None else SubscriptionState(*state)
    return entitlement(tenant_id, plan_in_force(tenant_plan, subscription, now), now, cap_cents)


async def _read(
    connection: Connection, tenant_ids: Sequence[str], now: datetime
) -> tuple[dict[str, Entitlement], Mapping[str, dict[str, Any]]]:
    rows = await (await connection.execute(TERMS, {"tenants": list(tenant_ids), "now": now})).fetchall()
    terms, used = {}, {}
    for row in rows:
        own = terms[row[0]] = terms_of(row, now)
        start, *figures = row[_N_TERMS:]
        if start == own.cycle.start:
            used[own.tenant_id] = dict(zip(_FIGURES, figures, strict=True))
    return terms, used


async def _note_terms(connection: Connection, tenant_id: str, now: datetime) -> None:
    await connection.execute(_HOLD, [tenant_id])  # the plan that is read next cannot change before the commit
    terms, _ = await _read(connection, [tenant_id], now)
    counts = [Count(own, 0, None) for own in terms.values()]
    await connection.execute(_ADD + ", plan_id = excluded.plan_id", _columns(counts))


def _standings(terms: dict[str, Entitlement], used: Mapping[str, dict[str, Any]]) -> dict[str, Standing]:
    return {tenant_id: _standing(own, used.get(tenant_id)) for tenant_id, own in terms.items()}


def _standing(terms: Entitlement, used: dict[str, Any] | None) -> Standing:
    if used is None:
        return Standing(terms, 0, None)
    highest = higher_limit(terms.request_limit, used["request_limit"])
    return Standing(replace(terms, request_limit=highest), used["units"], used["last_request_at"])


def _columns(counts: Iterable[Count]) -> dict[str, list[Any]]:
    given = list(counts)
    return {
        "tenants": [count.terms.tenant_id for count in given],
        "starts": [count.terms.cycle.start for count in given],
        "ends": [count.terms.cycle.end for count in given],
        "units": [count.units for count in given],
        "limits": [count.terms.request_limit for count in given],
        "plans": [count.terms.plan.id for count in given],
        "lasts": [count.last_request_at for count in given],
    }


_N_TERMS = 8
_FIGURES = ("units", "request_limit", "plan_id", "last_request_at")

# A tenant that has just subscribed has two cycles that are not over, the calendar month and its own. The terms decide
# which is current.
TERMS = """
SELECT tenants.id, tenants.plan, subscriptions.customer_id, subscriptions.plan_id, subscriptions.status,
    subscriptions.billing_cycle_anchor, subscriptions.past_due_since, billing_settings.overage_cap_cents,
    cycle.cycle_start, cycle.units, cycle.request_limit, cycle.plan_id, cycle.last_request_at
FROM tenants
LEFT JOIN subscriptions ON subscriptions.tenant_id = tenants.id
LEFT JOIN billing_settings ON billing_settings.tenant_id = tenants.id
LEFT JOIN usage_cycles AS cycle
    ON cycle.tenant_id = tenants.id AND cycle.cycle_start <= %(now)s AND cycle.cycle_end > %(now)s
WHERE tenants.id = ANY(%(tenants)s::text[]) AND tenants.deleted_at IS NULL
"""

_HOLD = "SELECT FROM subscriptions WHERE tenant_id = %s FOR SHARE"

# In the order of tenants, so that two processes cannot deadlock. The plan is not updated, since a process that adds
# counts may not know the newest yet.
_ADD = """
INSERT INTO usage_cycles AS cycle (tenant_id, cycle_start, cycle_end, units, request_limit, plan_id, last_request_at)
SELECT count.tenant_id, count.cycle_start, count.cycle_end, count.units, count.request_limit, count.plan_id, count.last
FROM unnest(
    %(tenants)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(units)s::bigint[], %(limits)s::bigint[],
    %(plans)s::text[], %(lasts)s::timestamptz[]
) AS count (tenant_id, cycle_start, cycle_end, units, request_limit, plan_id, last)
JOIN tenants ON tenants.id = count.tenant_id AND tenants.deleted_at IS NULL
ORDER BY count.tenant_id, count.cycle_start
ON CONFLICT (tenant_id, cycle_start) DO UPDATE SET
    units = cycle.units + excluded.units,
    request_limit = CASE
        WHEN cycle.request_limit IS NULL OR excluded.request_limit IS NULL THEN NULL
        ELSE greatest(cycle.request_limit, excluded.request_limit)
    END,
    last_request_at = greatest(cycle.last_request_at, excluded.last_request_at)
"""

_CLAIMED = """
WITH claimed AS (
    INSERT INTO usage_flushes AS known (process, sequence) VALUES (%(process)s, %(sequence)s)
    ON CONFLICT (process) DO UPDATE SET sequence = excluded.sequence, flushed_at = now()
    WHERE known.sequence < excluded.sequence
    RETURNING process
)
"""

_ADD_ONCE = (
    _CLAIMED
    + _ADD.replace("ORDER BY", "JOIN claimed ON true\nORDER BY")
    + "RETURNING tenant_id, cycle_start, cycle.units"
)

_UNMETERED = """
SELECT tenant_id, id, LEAST(users_scored, users_done) - users_metered FROM generation_jobs
WHERE users_metered < LEAST(users_scored, users_done)
ORDER BY tenant_id, id LIMIT 1000 FOR UPDATE SKIP LOCKED
"""

_METERED = """
UPDATE generation_jobs SET users_metered = users_metered + scored.units
FROM unnest(%s::bigint[], %s::text[], %s::uuid[]) AS scored (units, tenant_id, id)
WHERE generation_jobs.tenant_id = scored.tenant_id AND generation_jobs.id = scored.id
"""

_FORGET = "DELETE FROM usage_flushes WHERE process = %s OR flushed_at < now() - interval '7 days'"
