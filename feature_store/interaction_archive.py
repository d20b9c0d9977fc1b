"""Moves old interactions from the table `interactions` into rows of `archived_interactions`, many in each.

The table and its indexes keep recent interactions only. Queries that need interactions of any age read the archive as
well, so that their results do not change. Queries for a tenant's newest interactions read the table alone: the newest
KEPT_NEWEST stay there, however old they are.
"""

import time
from dataclasses import dataclass
from datetime import datetime

from feature_store.analytics_statements import LOCK_TOTALS
from feature_store.lake import TenantLake
from feature_store.tenant_writes import fetch_rows, lock_tenant, write_transaction

KEPT_NEWEST = 50_000
"""Interactions of a tenant that always stay in the table: popularity is computed from the newest ones."""
MAX_USERS = 500
"""Users whose interactions one transaction looks at."""
MAX_MOVED = 5_000
"""Interactions that one transaction moves. It bounds how long a deletion of a user waits."""


class IncompleteLakeError(RuntimeError):
    """The lake has fewer rows than were exported to it."""


@dataclass(frozen=True)
class Archived:
    """How many interactions were moved, and the user after whom the next call continues; None: no user is left."""

    moved: int
    next_user: str | None


def archive_interactions(url: str, lake: TenantLake, days: int, after_user: str, deadline: float) -> Archived:
    """Move interactions that happened and arrived more than `days` days ago, user by user, until the deadline.

    An interaction stays in the table while the lake does not hold it or the totals do not count it.

    Args:
        url: the database.
        lake: the tenant's; no export to it runs meanwhile.
        days: at least the longest period that figures can be asked for.
        after_user: begins after this user, in the database's order of ids; empty: with the first one.
        deadline: the `time.monotonic()` after which no further transaction begins.

    Raises IncompleteLakeError where files of the lake are gone.
    """
    if lake.cursor().exported_at is None:
        return Archived(0, None)
    with lake.exporting():
        exported = lake.cursor()
        with write_transaction(url) as cursor:
            if fetch_rows(cursor, "SELECT adopt_cluster()") != [(exported.cluster,)]:
                return Archived(0, None)  # the next export compares the lake with this database first
            found = fetch_rows(cursor, _OLDER_THAN, lake.tenant_id, days, KEPT_NEWEST)
        if not found:
            return Archived(0, None)
        _require_all(lake)
        moved, user = 0, after_user
        while True:
            part = _move(url, lake.tenant_id, found[0][0], exported.next_xid, user)
            moved += part.moved
            if part.next_user is None or time.monotonic() > deadline:
                return Archived(moved, part.next_user)
            user = part.next_user


def _require_all(lake: TenantLake) -> None:
    there = lake.rows_in_files()
    if there != (exported := lake.cursor().rows):
        raise IncompleteLakeError(
            f"{lake.folder} holds {there:,} of {exported:,} exported interactions: "
            f"`python -m pipelines backfill --tenant {lake.tenant_id} --from DAY` writes those that the database has"
        )


def _move(url: str, tenant_id: str, older_than: datetime, exported: int, user: str) -> Archived:
    """Move the interactions of one transaction. exported: the lake holds the rows of transactions below this id."""
    with write_transaction(url) as cursor:
        # Both locks come first: a deletion of the tenant, or a count of its rows, happens wholly before or after.
        lock_tenant(cursor, tenant_id)
        totals = fetch_rows(cursor, LOCK_TOTALS, tenant_id)
        if not totals:
            return Archived(0, None)  # nothing was counted yet
        fetch_rows(cursor, "SELECT set_config('recommendai.archiving', 'yes', true)")
        below = str(min(exported, int(totals[0][0])))
        moved, last = fetch_rows(cursor, _MOVE, tenant_id, user, older_than, below, MAX_USERS, MAX_MOVED)[0]
    return Archived(moved, user if moved == MAX_MOVED else last)


# No row where the tenant has no more interactions than stay.
_OLDER_THAN = """
SELECT least(now() - $2::bigint * interval '1 day', oldest_kept.occurred_at) AS older_than
FROM (
    SELECT occurred_at FROM interactions WHERE tenant_id = $1
    ORDER BY occurred_at DESC OFFSET $3::bigint - 1 LIMIT 1
) AS oldest_kept
"""

# It skips rows that an erasure has locked. An erasure that waits for rows of this statement deletes the archive's rows
# afterwards.
_MOVE = """
WITH next_users AS MATERIALIZED (
    SELECT id FROM users WHERE tenant_id = $1 AND id > $2::text ORDER BY id LIMIT $5::bigint
), expired AS MATERIALIZED (
    SELECT event.id FROM next_users CROSS JOIN LATERAL (
        SELECT id FROM interactions
        WHERE tenant_id = $1 AND user_id = next_users.id AND occurred_at < $3::timestamptz
            AND ingested_at < $3::timestamptz AND xid < $4::text::xid8
        LIMIT $6::bigint FOR UPDATE SKIP LOCKED
    ) AS event
    LIMIT $6::bigint
), gone AS (
    DELETE FROM interactions USING expired WHERE interactions.tenant_id = $1 AND interactions.id = expired.id
    RETURNING interactions.*
), moved AS (
    INSERT INTO archived_interactions AS known (
        tenant_id, user_id, month, ids, item_ids, interaction_types, event_values, occurred_at, ingested_at,
        recommendation_ids
    )
    SELECT $1, user_id, date_trunc('month', occurred_at AT TIME ZONE 'UTC')::date, array_agg(id), array_agg(item_id),
        array_agg(interaction_type), array_agg(value), array_agg(occurred_at), array_agg(ingested_at),
        array_agg(recommendation_id)
    FROM gone GROUP BY user_id, date_trunc('month', occurred_at AT TIME ZONE 'UTC') ORDER BY 2, 3
    ON CONFLICT (tenant_id, user_id, month) DO UPDATE SET ids = known.ids || excluded.ids,
        item_ids = known.item_ids || excluded.item_ids,
        interaction_types = known.interaction_types || excluded.interaction_types,
        event_values = known.event_values || excluded.event_values,
        occurred_at = known.occurred_at || excluded.occurred_at,
        ingested_at = known.ingested_at || excluded.ingested_at,
        recommendation_ids = known.recommendation_ids || excluded.recommendation_ids
), counted AS (
    INSERT INTO expired_counts AS known (tenant_id, interactions)
    SELECT $1, count(*) FROM gone HAVING count(*) > 0
    ON CONFLICT (tenant_id) DO UPDATE SET interactions = known.interactions + excluded.interactions
)
SELECT (SELECT count(*) FROM gone), (SELECT max(id) FROM next_users)
"""
