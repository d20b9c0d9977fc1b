"""Counts and measures of a tenant, kept in the product's database for the API's figures.

A roll-up counts the rows of the transactions that have ended, `next_xid <= xid < pg_snapshot_xmin(...)`, and moves
`next_xid` to that bound; whoever reads counts the rest live. So nothing is missed or counted twice, also where a
transaction commits late. Statements name tables and columns as text; a contract test holds them against the API's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from adbc_driver_postgresql import dbapi

KEPT_DAYS = 91
"""Days for which it is kept who was active: those that can be asked for (90), and one for clocks that disagree."""
ATTRIBUTION_HOURS = 24
"""An interaction that names no answer follows from the newest one that showed its user the item in this time."""
STEP_ROWS = 100_000
"""Interactions that one transaction counts, unless a single transaction wrote more: whoever deletes a user waits
for it at most."""


@dataclass(frozen=True)
class RolledUp:
    """What was newly counted."""

    users: int = 0
    interactions: int = 0
    shown: int = 0  # items in answers
    attributed: int = 0  # interactions that followed from an answer
    more: bool = False  # there are rows left to count

    def __add__(self, other: "RolledUp") -> "RolledUp":
        return RolledUp(
            self.users + other.users,
            self.interactions + other.interactions,
            self.shown + other.shown,
            self.attributed + other.attributed,
            other.more,
        )


@dataclass(frozen=True)
class MeasuredModel:
    """A model of a release, with its AUC; None where none could be measured."""

    family: str
    version: str
    auc: float | None


@dataclass(frozen=True)
class Accuracy:
    """What one model reached on one day's interactions."""

    family: str
    auc: float
    users: int


def roll_up(url: str, tenant_id: str, today: date | None = None, step_rows: int = STEP_ROWS) -> RolledUp:
    """Count one step of what is new of a tenant, in one transaction.

    Args:
        today: the day in UTC that `KEPT_DAYS` ends with; default: the clock's.
        step_rows: interactions to stop after, at the end of a transaction that wrote some of them.

    Raises LookupError where there is no such tenant, ValueError where the database is behind the last roll-up.
    """
    first = (today or datetime.now(UTC).date()) - timedelta(days=KEPT_DAYS - 1)
    with _transaction(url) as cursor:
        # Both locks before any count: a deletion of the tenant or of its rows comes wholly before, or wholly after.
        if not _rows(cursor, _LOCK_TENANT, tenant_id):
            raise LookupError(f"there is no tenant {tenant_id}")
        _do(cursor, _MAKE_TOTALS, tenant_id)
        lower = int(_rows(cursor, _LOCK_TOTALS, tenant_id)[0][0])
        end = int(_rows(cursor, _XMIN)[0][0])
        if end < lower:
            raise ValueError(
                f"the totals of tenant {tenant_id} end at transaction {lower}, the database has come to {end} only: "
                "it was restored elsewhere. Delete the tenant's rows of analytics_totals, analytics_days and "
                "analytics_active_users to count everything anew"
            )
        upper = _step_end(cursor, tenant_id, lower, end, step_rows)
        span = (tenant_id, str(lower), str(upper))
        interactions = int(_rows(cursor, _COUNT.format("count(*)", "interactions"), *span)[0][0])
        users = int(_rows(cursor, _COUNT.format("count(*)", "users"), *span)[0][0])
        shown = int(_rows(cursor, _COUNT.format("coalesce(sum(cardinality(item_ids)), 0)", "impressions"), *span)[0][0])
        attributed = 0
        if interactions:
            _do(cursor, _ADD_ACTIVE, *span, first)
            attributed = int(_rows(cursor, _ATTRIBUTE, *span)[0][0])
        if shown:
            _do(cursor, _ADD_SHOWN, *span)
        if interactions or users or shown:
            _do(cursor, _MOVE, tenant_id, str(upper), users, interactions, shown)
            _do(cursor, _FORGET_ACTIVE, tenant_id, first)
        return RolledUp(users, interactions, shown, attributed, more=upper < end)


def record_release(url: str, tenant_id: str, release: str, models: list[MeasuredModel]) -> None:
    """Note the champions that a release was made of. Raises LookupError where there is no such tenant."""
    with _transaction(url) as cursor:
        if not _rows(cursor, _LOCK_TENANT, tenant_id):
            raise LookupError(f"there is no tenant {tenant_id}")
        for model in models:
            _do(cursor, _ADD_MODEL, tenant_id, release, model.family, model.version, model.auc)


def record_accuracy(url: str, tenant_id: str, day: date, release: str, measured: list[Accuracy]) -> None:
    """Note what the models of a release reached on a day, in place of what was noted before.

    Raises LookupError where there is no such tenant.
    """
    with _transaction(url) as cursor:
        if not _rows(cursor, _LOCK_TENANT, tenant_id):
            raise LookupError(f"there is no tenant {tenant_id}")
        for each in measured:
            _do(cursor, _SET_ACCURACY, tenant_id, day, release, each.family, each.auc, each.users)


def _step_end(cursor: dbapi.Cursor, tenant_id: str, lower: int, end: int, step_rows: int) -> int:
    """The transaction to count up to: the one that wrote the first row past the step, `end` where there is none."""
    found = _rows(cursor, _STEP_END, tenant_id, str(lower), str(end), step_rows)
    if not found:
        return end
    first, upper = map(int, found[0])
    return upper if upper > first else upper + 1  # one transaction wrote the whole step, and is counted whole


@contextmanager
def _transaction(url: str) -> Iterator[dbapi.Cursor]:
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        try:
            yield cursor
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


def _rows(cursor: dbapi.Cursor, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    cursor.execute(statement, parameters or None)
    return list(cursor.fetchall())


def _do(cursor: dbapi.Cursor, statement: str, *parameters: Any) -> None:
    cursor.execute(statement, parameters)


_LOCK_TENANT = "SELECT id FROM tenants WHERE id = $1 AND deleted_at IS NULL FOR SHARE"
_MAKE_TOTALS = "INSERT INTO analytics_totals (tenant_id) VALUES ($1) ON CONFLICT DO NOTHING"
_LOCK_TOTALS = "SELECT next_xid::text FROM analytics_totals WHERE tenant_id = $1 FOR UPDATE"
_XMIN = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
_SPAN = "tenant_id = $1 AND xid >= $2::text::xid8 AND xid < $3::text::xid8"
_STEP_END = f"""
WITH come AS (SELECT xid FROM interactions WHERE {_SPAN} ORDER BY xid LIMIT $4::bigint + 1)
SELECT min(xid)::text, max(xid)::text FROM come HAVING count(*) > $4::bigint
"""  # noqa: S608
_COUNT = f"SELECT {{}} FROM {{}} WHERE {_SPAN}"  # noqa: S608

# In the order of the key, in which neighbours go to the same pages.
_ADD_ACTIVE = f"""
WITH come AS (
    INSERT INTO analytics_active_users (tenant_id, day, user_id)
    SELECT DISTINCT $1, (occurred_at AT TIME ZONE 'UTC')::date, user_id FROM interactions
    WHERE {_SPAN} AND occurred_at >= $4::date::timestamp AT TIME ZONE 'UTC'
    ORDER BY 2, 3 ON CONFLICT DO NOTHING RETURNING day
)
INSERT INTO analytics_days AS known (tenant_id, day, active_users)
SELECT $1, day, count(*) FROM come GROUP BY day
ON CONFLICT (tenant_id, day) DO UPDATE SET active_users = known.active_users + excluded.active_users
"""  # noqa: S608

_ADD_SHOWN = f"""
INSERT INTO analytics_days AS known (tenant_id, day, shown)
SELECT $1, (created_at AT TIME ZONE 'UTC')::date, sum(cardinality(item_ids)) FROM impressions WHERE {_SPAN} GROUP BY 2
ON CONFLICT (tenant_id, day) DO UPDATE SET shown = known.shown + excluded.shown
"""  # noqa: S608

# The answer that the interaction names, where it showed the item; else the newest that showed it to the user lately.
# What lies before the first answer, such as an imported past, is not looked up row by row.
_ATTRIBUTE = f"""
WITH first_answer AS MATERIALIZED (
    SELECT created_at FROM impressions WHERE tenant_id = $1 ORDER BY created_at LIMIT 1
), come AS (
    SELECT id, user_id, item_id, recommendation_id, occurred_at FROM interactions
    WHERE {_SPAN} AND (recommendation_id IS NOT NULL OR occurred_at >= (SELECT created_at FROM first_answer))
), followed AS (
    INSERT INTO attributions (tenant_id, interaction_id, recommendation_id)
    SELECT $1, come.id, coalesce(named.recommendation_id, shown.recommendation_id)
    FROM come
    LEFT JOIN LATERAL (
        SELECT recommendation_id FROM impressions
        WHERE tenant_id = $1 AND recommendation_id = come.recommendation_id AND come.item_id = ANY (item_ids)
        LIMIT 1
    ) AS named ON true
    LEFT JOIN LATERAL (
        SELECT recommendation_id FROM impressions
        WHERE named.recommendation_id IS NULL AND tenant_id = $1 AND user_id = come.user_id
            AND created_at <= come.occurred_at
            AND created_at > come.occurred_at - interval '{ATTRIBUTION_HOURS} hours'
            AND come.item_id = ANY (item_ids)
        ORDER BY created_at DESC LIMIT 1
    ) AS shown ON true
    WHERE coalesce(named.recommendation_id, shown.recommendation_id) IS NOT NULL
    ON CONFLICT (tenant_id, interaction_id) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM followed
"""  # noqa: S608

_MOVE = """
UPDATE analytics_totals SET next_xid = $2::text::xid8, users = users + $3::bigint,
    interactions = interactions + $4::bigint, shown = shown + $5::bigint
WHERE tenant_id = $1
"""

_FORGET_ACTIVE = "DELETE FROM analytics_active_users WHERE tenant_id = $1 AND day < $2::date"

_ADD_MODEL = """
INSERT INTO release_models (tenant_id, release, family, version, auc) VALUES ($1, $2, $3, $4, $5::float8)
ON CONFLICT (tenant_id, release, family) DO NOTHING
"""

_SET_ACCURACY = """
INSERT INTO daily_accuracy (tenant_id, day, release, family, auc, users)
VALUES ($1, $2::date, $3, $4, $5::float8, $6::bigint)
ON CONFLICT (tenant_id, day, release, family)
DO UPDATE SET auc = excluded.auc, users = excluded.users, measured_at = now()
"""
