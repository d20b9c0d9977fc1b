"""Reads for a tenant's analytics: when each release served, which events to evaluate it on, and its online metrics."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pyarrow as pa

from feature_store import columns as c
from feature_store.online import NEWEST_FIRST_SQL, newest_events_sql
from feature_store.schemas import EVALUATION_EVENTS, ONLINE_METRICS
from feature_store.sources import EVENT_SQL, repeatable_read

ONLINE_DAYS = 30
"""Days, up to now, that online metrics cover."""


@dataclass(frozen=True)
class ServingPeriod:
    """The part of a day (UTC) during which one release served: `start <= time < end`."""

    release: str
    day: date
    start: datetime
    end: datetime


def serving_periods(url: str, tenant_id: str, now: datetime, days: int) -> list[ServingPeriod]:
    """The serving periods of the last `days` days, today included, in the order of time.

    A release serves from its publication until the publication of the next one.
    """
    with repeatable_read(url) as cursor:
        cursor.execute(
            "SELECT release, min(published_at) AS published_at FROM release_models WHERE tenant_id = $1 "
            "GROUP BY release ORDER BY release",
            (tenant_id,),
        )
        rows = cursor.fetch_arrow_table()
    published = [(release, at.astimezone(UTC)) for release, at in zip(*rows.to_pydict().values(), strict=True)]
    found = []
    first = datetime.combine(now.date() - timedelta(days=days - 1), time(), UTC)
    for (release, start), (_, end) in pairwise([*published, ("", now)]):
        day = max(start, first).date()
        while (midnight := datetime.combine(day, time(), UTC)) < end:
            part = ServingPeriod(release, day, max(start, midnight), min(end, midnight + timedelta(days=1)))
            if part.start < part.end:
                found.append(part)
            day += timedelta(days=1)
    return found


def days_with_accuracy(url: str, tenant_id: str) -> set[tuple[str, date]]:
    """The pairs of release and day whose accuracy is stored."""
    with repeatable_read(url) as cursor:
        cursor.execute("SELECT DISTINCT release, day FROM daily_accuracy WHERE tenant_id = $1", (tenant_id,))
        return set(zip(*cursor.fetch_arrow_table().to_pydict().values(), strict=True))


def tenants_with_outdated_accuracy(url: str) -> set[str]:
    """Whose newest release got interactions since its accuracy was last measured. One query answers for all tenants."""
    with repeatable_read(url) as cursor:
        cursor.execute(_OUTDATED_ACCURACY)
        return set(cursor.fetch_arrow_table()["tenant_id"].to_pylist())


def evaluation_events(
    url: str, tenant_id: str, start: datetime, end: datetime, max_users: int, max_events: int
) -> pa.Table:
    """Events of users who acted in `start <= time < end`: those inside are targets, those before are history.

    Args:
        max_users: bound on the users. Which ones are taken depends on their ids alone, so a repeated call takes the
            same users.
        max_events: bound on each user's history: the newest events before `start`.

    Returns:
        EVALUATION_EVENTS.
    """
    with repeatable_read(url) as cursor:
        cursor.execute(_EVALUATION_EVENTS, (tenant_id, start, end, max_users, max_events))
        return cursor.fetch_arrow_table().cast(EVALUATION_EVENTS)


def online_metrics(url: str, tenant_id: str) -> pa.Table:
    """Impressions of the last ONLINE_DAYS and the interactions attributed to them (ONLINE_METRICS), by release."""
    with repeatable_read(url) as cursor:
        cursor.execute(_ONLINE_METRICS, (tenant_id,))
        return cursor.fetch_arrow_table().cast(ONLINE_METRICS)


def followed_by_day(url: str, tenant_id: str, since: date) -> pa.Table:
    """Answers of models on each day from `since` on, and how many of them an interaction is attributed to.

    Returns the columns day (date), answers and followed (int64), without days that have none.
    """
    with repeatable_read(url) as cursor:
        cursor.execute(_FOLLOWED_BY_DAY, (tenant_id, since))
        return cursor.fetch_arrow_table()


def newest_release_accuracy(url: str, tenant_id: str, since: date) -> pa.Table:
    """What the models of the newest release reached on each day from `since` on, beside what they promised.

    Returns the columns day, family, auc, users, and offline: the AUC at training.
    """
    with repeatable_read(url) as cursor:
        cursor.execute(_NEWEST_RELEASE_ACCURACY, (tenant_id, since))
        return cursor.fetch_arrow_table()


_BEFORE = newest_events_sql("$1", "evaluated.user_id", "$5::bigint", "occurred_at < $2::timestamptz")
_EVALUATION_EVENTS = f"""
WITH evaluated AS MATERIALIZED (
    SELECT user_id, (row_number() OVER (ORDER BY md5(user_id), user_id) - 1)::int AS user_index
    FROM (
        SELECT DISTINCT user_id FROM interactions
        WHERE tenant_id = $1 AND occurred_at >= $2::timestamptz AND occurred_at < $3::timestamptz
    ) AS acting
    ORDER BY user_index LIMIT $4::bigint
)
SELECT evaluated.user_index AS "{c.USER}", event.item_id AS {c.ITEM_ID}, event.type AS {c.TYPE},
    event.weight AS {c.WEIGHT}, event.timestamp AS {c.TIMESTAMP}, event.is_target AS {c.IS_TARGET}
FROM evaluated CROSS JOIN LATERAL (
    (
        SELECT {EVENT_SQL}, true AS is_target, id FROM interactions
        WHERE tenant_id = $1 AND user_id = evaluated.user_id
            AND occurred_at >= $2::timestamptz AND occurred_at < $3::timestamptz
    ) UNION ALL (
        SELECT {EVENT_SQL}, false, id FROM ({_BEFORE}) AS earlier
        ORDER BY {NEWEST_FIRST_SQL} LIMIT $5::bigint
    )
) AS event
ORDER BY evaluated.user_index, event.timestamp, event.item_id COLLATE "C", event.id
"""  # noqa: S608 - constants of this code base

_OUTDATED_ACCURACY = """
WITH newest AS (
    SELECT DISTINCT ON (tenant_id) tenant_id, release, min(published_at) AS published_at
    FROM release_models GROUP BY tenant_id, release ORDER BY tenant_id, release DESC
)
SELECT newest.tenant_id FROM newest JOIN LATERAL (
    SELECT FROM interactions AS event
    WHERE event.tenant_id = newest.tenant_id AND event.occurred_at >= greatest(newest.published_at, (
        SELECT max(measured_at) FROM daily_accuracy AS measured
        WHERE measured.tenant_id = newest.tenant_id AND measured.release = newest.release
    )) LIMIT 1
) AS unmeasured ON true
"""

_ONLINE_METRICS = f"""
WITH shown AS (
    SELECT recommendation_id, coalesce(release, '') AS release, algorithm, cardinality(item_ids) AS items
    FROM impressions WHERE tenant_id = $1 AND created_at >= now() - interval '{ONLINE_DAYS} days'
), attributed AS (
    SELECT recommendation_id, count(*) AS interactions
    FROM attributions WHERE tenant_id = $1 GROUP BY recommendation_id
)
SELECT release AS {c.RELEASE}, algorithm AS {c.ALGORITHM}, count(*) AS {c.IMPRESSIONS},
    sum(items)::bigint AS {c.ITEMS_SHOWN}, count(interactions) AS {c.ATTRIBUTED_IMPRESSIONS},
    coalesce(sum(interactions), 0)::bigint AS {c.ATTRIBUTED_INTERACTIONS}
FROM shown LEFT JOIN attributed USING (recommendation_id)
GROUP BY release, algorithm ORDER BY release DESC, algorithm
"""  # noqa: S608 - constants of this code base

_FOLLOWED_BY_DAY = """
SELECT (created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS answers,
    count(attributed.recommendation_id) AS followed
FROM impressions LEFT JOIN (
    SELECT DISTINCT recommendation_id FROM attributions WHERE tenant_id = $1
) AS attributed USING (recommendation_id)
WHERE tenant_id = $1 AND release IS NOT NULL AND created_at >= $2::date::timestamp AT TIME ZONE 'UTC'
GROUP BY day
"""

_NEWEST_RELEASE_ACCURACY = """
SELECT day, family, online.auc, users, released.auc AS offline
FROM daily_accuracy AS online JOIN release_models AS released USING (tenant_id, release, family)
WHERE tenant_id = $1 AND day >= $2::date AND released.auc IS NOT NULL AND release = (
    SELECT release FROM release_models WHERE tenant_id = $1 ORDER BY release DESC LIMIT 1
)
ORDER BY family, day
"""
