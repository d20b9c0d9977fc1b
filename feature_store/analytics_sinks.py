"""Writes for a tenant's analytics: counts, attributions, the models of releases and their daily accuracy.

A roll-up counts the rows of transactions that have ended, `next_xid <= xid < pg_snapshot_xmin(...)`, and moves
`next_xid` to that bound. The API adds the rows after the bound when it reads. A row whose transaction commits late is
therefore counted exactly once. The statements are in `analytics_statements`.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from adbc_driver_postgresql import dbapi

from feature_store import analytics_statements as statements
from feature_store.tenant_writes import fetch_rows, lock_tenant, write_transaction

KEPT_DAYS = 91
"""Days for which active users are kept: the 90 that the API can be asked for, and one for clocks that disagree."""
STEP_ROWS = 100_000
"""Interactions that one transaction counts, unless a single transaction wrote more. It bounds how long a deletion of
a user waits for the roll-up."""


@dataclass(frozen=True)
class RollUpCounts:
    """What a roll-up added."""

    users: int = 0
    interactions: int = 0
    shown: int = 0  # items shown in impressions
    attributed: int = 0  # interactions attributed to an impression
    more: bool = False  # rows are left to count

    def __add__(self, other: "RollUpCounts") -> "RollUpCounts":
        return RollUpCounts(
            self.users + other.users,
            self.interactions + other.interactions,
            self.shown + other.shown,
            self.attributed + other.attributed,
            other.more,
        )


@dataclass(frozen=True)
class ReleasedModel:
    """A model of a release. `auc` is its AUC at training, None where no user of the test window had one."""

    family: str
    version: str
    auc: float | None
    actor: str = "pipeline"  # who made it champion, as the audit trail names actors
    by: str | None = None  # the person who chose it; None: the promotion rule did
    reason: str = ""  # of that choice
    rolled_back: bool = False  # the choice went back to an earlier version


@dataclass(frozen=True)
class ModelAccuracy:
    """What one model reached on one day's interactions: the mean AUC over `users` users."""

    family: str
    auc: float
    users: int


def roll_up_step(url: str, tenant_id: str, today: date | None = None, step_rows: int = STEP_ROWS) -> RollUpCounts:
    """Count the next rows of a tenant that were not counted yet, in one transaction.

    Args:
        today: the last of the `KEPT_DAYS` days, in UTC; None takes the clock's.
        step_rows: interactions after which the step ends, together with the transaction that wrote the last of them.

    Raises LookupError where there is no such tenant, ValueError where the database is behind the last roll-up although
    it is in the cluster of that one.
    """
    first = (today or datetime.now(UTC).date()) - timedelta(days=KEPT_DAYS - 1)
    with write_transaction(url) as cursor:
        fetch_rows(cursor, statements.ADOPT_CLUSTER)
        # Both locks come before any count: a deletion of the tenant or of its rows happens wholly before or after.
        lock_tenant(cursor, tenant_id)
        _execute(cursor, statements.MAKE_TOTALS, tenant_id)
        lower = int(fetch_rows(cursor, statements.LOCK_TOTALS, tenant_id)[0][0])
        end = int(fetch_rows(cursor, statements.XMIN)[0][0])
        if end < lower:
            raise ValueError(
                f"the totals of tenant {tenant_id} end at transaction {lower}, the database has come to {end} only: "
                "it was restored elsewhere. Delete the tenant's rows of analytics_totals, analytics_days and "
                "analytics_active_users to count everything anew"
            )
        upper = _step_end(cursor, tenant_id, lower, end, step_rows)
        span = (tenant_id, str(lower), str(upper))
        users = int(fetch_rows(cursor, statements.COUNT_USERS, *span)[0][0])
        interactions = int(fetch_rows(cursor, statements.COUNT_INTERACTIONS, *span)[0][0])
        shown = int(fetch_rows(cursor, statements.COUNT_ITEMS_SHOWN, *span)[0][0])
        attributed = 0
        if interactions:
            _execute(cursor, statements.ADD_ACTIVE_USERS, *span, first)
            attributed = int(fetch_rows(cursor, statements.ATTRIBUTE, *span)[0][0])
        if shown:
            _execute(cursor, statements.ADD_ITEMS_SHOWN, *span)
        if interactions or users or shown:
            _execute(cursor, statements.ADVANCE_TOTALS, tenant_id, str(upper), users, interactions, shown)
            _execute(cursor, statements.DELETE_OLD_ACTIVE_USERS, tenant_id, first)
        return RollUpCounts(users, interactions, shown, attributed, more=upper < end)


def record_release(url: str, tenant_id: str, release: str, models: list[ReleasedModel]) -> None:
    """Store the champions that a release was made of, and note new ones in the tenant's audit trail.

    Raises LookupError where there is no such tenant.
    """
    with write_transaction(url) as cursor:
        lock_tenant(cursor, tenant_id)
        for model in models:
            added = fetch_rows(
                cursor, statements.ADD_RELEASE_MODEL, tenant_id, release, model.family, model.version, model.auc
            )
            if added:
                _execute(
                    cursor,
                    statements.NOTE_PROMOTION,
                    *(tenant_id, release, model.family, model.version),
                    *(model.actor, model.by, model.reason),
                    "model.rolled_back" if model.rolled_back else "model.promoted",
                )


def record_accuracy(url: str, tenant_id: str, day: date, release: str, accuracies: list[ModelAccuracy]) -> None:
    """Store what the models of a release reached on a day, replacing earlier figures of that day.

    Raises LookupError where there is no such tenant.
    """
    with write_transaction(url) as cursor:
        lock_tenant(cursor, tenant_id)
        for each in accuracies:
            _execute(cursor, statements.SET_ACCURACY, tenant_id, day, release, each.family, each.auc, each.users)


def _step_end(cursor: dbapi.Cursor, tenant_id: str, lower: int, end: int, step_rows: int) -> int:
    """The transaction id that the step counts up to: that of the first row past the step, or `end` without one."""
    found = fetch_rows(cursor, statements.STEP_END, tenant_id, str(lower), str(end), step_rows)
    if not found:
        return end
    first, upper = map(int, found[0])
    return upper if upper > first else upper + 1  # one transaction wrote all of the step, and is counted as a whole


def _execute(cursor: dbapi.Cursor, statement: str, *parameters: Any) -> None:
    cursor.execute(statement, parameters)
