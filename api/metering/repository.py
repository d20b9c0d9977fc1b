"""Reads and writes usage. Queries answer for many tenants at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Connection, OneConnection, Pool
from api.database.scope import TenantScope
from api.metering.cycles import Cycle
from api.metering.history import PlanHistory, PlanPeriod
from api.metering.terms import Entitlement, entitlement, month_terms
from api.tenants.problems import TenantGone

CycleKey = tuple[str, datetime]
"""Tenant and start of the cycle."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant's terms and usage in one of its months. least_cap_cents: see `effective_cap`."""

    terms: Entitlement
    units: int
    last_request_at: datetime | None
    least_cap_cents: int = 0


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


async def standings_of(pool: Pool, tenant_ids: Sequence[str], now: datetime) -> dict[str, Standing]:
    """Standings by tenant, without deleted tenants."""
    async with pool.connection() as connection:
        return _standings(*await _read(connection, tenant_ids, now))


async def months_of(
    session: AsyncSession, scope: TenantScope, now: datetime, *, ended_by: datetime | None = None
) -> list[Standing]:
    """The tenant's months whose cost is not decided yet, as of `now`.

    ended_by: only the months that have ended by then, each as of its own end. Without it: only those that have not
    ended by `now`. There may be two, that of a subscription and a calendar month. Raises TenantGone.
    """
    parameters = {"tenants": [scope.tenant_id], "now": now, "ended_by": ended_by}
    async with OneConnection(session).connection() as connection:
        rows = await (await connection.execute(_MONTHS, parameters)).fetchall()
    return [_month_of(row, now, ended_by) for row in rows]


async def history_of(session: AsyncSession, scope: TenantScope, now: datetime) -> PlanHistory:
    """The plans that the tenant has held lately, up to `now`. Raises TenantGone."""
    async with OneConnection(session).connection() as connection:
        row = await (await connection.execute(TERMS, {"tenants": [scope.tenant_id], "now": now})).fetchone()
    if row is None:
        raise TenantGone
    return _history(row)


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
    """The terms of the current month in a row of `TERMS`, without a cap that was kept at a change of plan."""
    return entitlement(row[0], _history(row), now, row[2])


def _history(row: Sequence[Any]) -> PlanHistory:
    starts, plan_ids, anchors = row[3:_N_TERMS]
    return PlanHistory(row[1], [PlanPeriod(*each) for each in zip(starts, plan_ids, anchors, strict=True)])


async def _read(
    connection: Connection, tenant_ids: Sequence[str], now: datetime
) -> tuple[dict[str, Entitlement], Mapping[str, tuple[int, datetime | None]]]:
    """The terms of the tenants' current months, and units and last request of those that have any."""
    rows = await (await connection.execute(TERMS, {"tenants": list(tenant_ids), "now": now})).fetchall()
    terms: dict[str, Entitlement] = {}
    used = {}
    for row in rows:
        tenant_id, _, cap_cents, *_ = row
        own = terms.setdefault(tenant_id, terms_of(row, now))
        start, units, least_cap_cents, last_request_at = row[_N_TERMS:]
        if start == own.cycle.start:
            terms[tenant_id] = entitlement(tenant_id, _history(row), now, cap_cents, least_cap_cents)
            used[tenant_id] = (units, last_request_at)
    return terms, used


def _standings(terms: dict[str, Entitlement], used: Mapping[str, tuple[int, datetime | None]]) -> dict[str, Standing]:
    return {tenant_id: Standing(own, *used.get(tenant_id, (0, None))) for tenant_id, own in terms.items()}


def _month_of(row: Sequence[Any], now: datetime, ended_by: datetime | None) -> Standing:
    start, units, least_cap_cents, last_request_at, end, anchor, cap_cents = row[_N_TERMS:]
    as_of = now if ended_by is None else end
    terms = month_terms(row[0], _history(row), anchor, Cycle(start, end), as_of, cap_cents, least_cap_cents)
    return Standing(terms, units, last_request_at, least_cap_cents)


def _columns(counts: Iterable[Count]) -> dict[str, list[Any]]:
    given = list(counts)
    return {
        "tenants": [count.terms.tenant_id for count in given],
        "starts": [count.terms.cycle.start for count in given],
        "ends": [count.terms.cycle.end for count in given],
        "units": [count.units for count in given],
        "anchors": [count.terms.anchor for count in given],
        "lasts": [count.last_request_at for count in given],
    }


_N_TERMS = 6
LONGEST_MONTH = timedelta(days=31)

# The periods that reach into a time: those that start in it, and the one before. The first of the parameters names when
# the time begins, the other when it ends.
_PERIODS = """
LEFT JOIN LATERAL (
    SELECT coalesce(array_agg(held.started_at ORDER BY held.started_at), '{{}}') AS starts,
        coalesce(array_agg(held.plan_id ORDER BY held.started_at), '{{}}') AS plans,
        coalesce(array_agg(held.anchor ORDER BY held.started_at), '{{}}') AS anchors
    FROM plan_periods AS held
    WHERE held.tenant_id = tenants.id AND held.started_at <= {1} AND held.started_at >= coalesce((
        SELECT max(before.started_at) FROM plan_periods AS before
        WHERE before.tenant_id = tenants.id AND before.started_at <= {0}
    ), '-infinity')
) AS period ON true
"""

# A tenant that has just subscribed has two cycles that are not over, the calendar month and its own. The terms decide
# which is current.
TERMS = f"""
SELECT tenants.id, tenants.plan, billing_settings.overage_cap_cents, period.starts, period.plans, period.anchors,
    cycle.cycle_start, cycle.units, cycle.least_cap_cents, cycle.last_request_at
FROM tenants
LEFT JOIN billing_settings ON billing_settings.tenant_id = tenants.id
LEFT JOIN usage_cycles AS cycle
    ON cycle.tenant_id = tenants.id AND cycle.cycle_start <= %(now)s AND cycle.cycle_end > %(now)s
{_PERIODS.format(f"%(now)s::timestamptz - interval '{LONGEST_MONTH.days} days'", "%(now)s")}
WHERE tenants.id = ANY(%(tenants)s::text[]) AND tenants.deleted_at IS NULL
"""  # noqa: S608 - this module's constants

_AS_OF = "CASE WHEN %(ended_by)s::timestamptz IS NULL THEN %(now)s ELSE cycle.cycle_end END"

# Of a month that has ended, the cap is the one at its end. Later changes count for later months.
_MONTHS = f"""
SELECT tenants.id, tenants.plan, NULL, period.starts, period.plans, period.anchors,
    cycle.cycle_start, cycle.units, cycle.least_cap_cents, cycle.last_request_at, cycle.cycle_end, cycle.anchor,
    CASE WHEN changed.since THEN changed.cap_cents ELSE billing_settings.overage_cap_cents END
FROM tenants
JOIN usage_cycles AS cycle ON cycle.tenant_id = tenants.id AND cycle.settled_at IS NULL
LEFT JOIN billing_settings ON billing_settings.tenant_id = tenants.id
LEFT JOIN LATERAL (
    SELECT true AS since, ((before ->> 'overageBudgetCap')::numeric * 100)::bigint AS cap_cents
    FROM billing_audit
    WHERE billing_audit.tenant_id = cycle.tenant_id AND action = 'cap' AND at >= cycle.cycle_end
    ORDER BY at LIMIT 1
) AS changed ON %(ended_by)s::timestamptz IS NOT NULL
{_PERIODS.format("cycle.cycle_start", _AS_OF)}
WHERE tenants.id = ANY(%(tenants)s::text[]) AND tenants.deleted_at IS NULL AND CASE
    WHEN %(ended_by)s::timestamptz IS NULL THEN cycle.cycle_end > %(now)s ELSE cycle.cycle_end <= %(ended_by)s
END
ORDER BY cycle.cycle_start
"""  # noqa: S608 - the same

# In the order of tenants, so that two processes cannot deadlock.
_ADD = """
INSERT INTO usage_cycles AS cycle (tenant_id, cycle_start, cycle_end, units, anchor, last_request_at)
SELECT count.tenant_id, count.cycle_start, count.cycle_end, count.units, count.anchor, count.last
FROM unnest(
    %(tenants)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[], %(units)s::bigint[],
    %(anchors)s::timestamptz[], %(lasts)s::timestamptz[]
) AS count (tenant_id, cycle_start, cycle_end, units, anchor, last)
JOIN tenants ON tenants.id = count.tenant_id AND tenants.deleted_at IS NULL
ORDER BY count.tenant_id, count.cycle_start
ON CONFLICT (tenant_id, cycle_start) DO UPDATE SET
    units = cycle.units + excluded.units,
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
