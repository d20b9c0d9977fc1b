"""Reads for the figures of a tenant: what to measure releases on, and how their answers are followed."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pyarrow as pa

from feature_store import columns as c
from feature_store.interaction_types import EVENT_WEIGHT_SQL, TYPE_CODE_SQL
from feature_store.schemas import ONLINE_METRICS, QUESTIONS
from feature_store.sources import repeatable_read

ONLINE_DAYS = 30


@dataclass(frozen=True)
class Service:
    """The part of a day (UTC) during which one release served: `start <= moment < end`."""

    release: str
    day: date
    start: datetime
    end: datetime


def services(url: str, tenant_id: str, now: datetime, days: int) -> list[Service]:
    """Which release served when, on each of the last days with today, by time.

    A release serves from its publication until that of the next one.
    """
    with repeatable_read(url) as cursor:
        cursor.execute(
            "SELECT release, min(published_at) AS published_at FROM release_models WHERE tenant_id = $1 "
            "GROUP BY release ORDER BY release",
            (tenant_id,),
        )
        rows = cursor.fetch_arrow_table()
    moments = [(release, at.astimezone(UTC)) for release, at in zip(*rows.to_pydict().values(), strict=True)]
    found = []
    first = datetime.combine(now.date() - timedelta(days=days - 1), time(), UTC)
    for (release, start), (_, end) in pairwise([*moments, ("", now)]):
        day = max(start, first).date()
        while (midnight := datetime.combine(day, time(), UTC)) < end:
            part = Service(release, day, max(start, midnight), min(end, midnight + timedelta(days=1)))
            if part.start < part.end:
                found.append(part)
            day += timedelta(days=1)
    return found


def measured(url: str, tenant_id: str) -> set[tuple[str, date]]:
    """The releases and days that have an accuracy."""
    with repeatable_read(url) as cursor:
        cursor.execute("SELECT DISTINCT release, day FROM daily_accuracy WHERE tenant_id = $1", (tenant_id,))
        return set(zip(*cursor.fetch_arrow_table().to_pydict().values(), strict=True))


def awaits_measuring(url: str, tenant_id: str) -> bool:
    """Whether interactions came under the newest release since its accuracy was last measured."""
    with repeatable_read(url) as cursor:
        cursor.execute(_AWAITS, (tenant_id,))
        return bool(cursor.fetch_arrow_table()["awaits"][0].as_py())


def questions(url: str, tenant_id: str, start: datetime, end: datetime, users: int, events: int) -> pa.Table:
    """What users had done before a moment, and what they did from it until another (QUESTIONS).

    Args:
        users: at most so many of those who did something, always the same ones of the same users.
        events: at most so many of each user's newest events before `start`.
    """
    with repeatable_read(url) as cursor:
        cursor.execute(_QUESTIONS, (tenant_id, start, end, users, events))
        return cursor.fetch_arrow_table().cast(QUESTIONS)


def online_metrics(url: str, tenant_id: str) -> pa.Table:
    """How the answers of the last ONLINE_DAYS were followed (ONLINE_METRICS), newest release first."""
    with repeatable_read(url) as cursor:
        cursor.execute(_ONLINE_METRICS, (tenant_id,))
        return cursor.fetch_arrow_table().cast(ONLINE_METRICS)


_EVENT = f"""
    item_id, ({TYPE_CODE_SQL})::smallint AS type, {EVENT_WEIGHT_SQL}::real AS weight,
    (extract(epoch FROM occurred_at) * 1000000)::bigint AS timestamp
"""

_QUESTIONS = f"""
WITH asked AS MATERIALIZED (
    SELECT user_id, (row_number() OVER (ORDER BY md5(user_id), user_id) - 1)::int AS place
    FROM (
        SELECT DISTINCT user_id FROM interactions
        WHERE tenant_id = $1 AND occurred_at >= $2::timestamptz AND occurred_at < $3::timestamptz
    ) AS acting
    ORDER BY place LIMIT $4::bigint
)
SELECT asked.place AS "{c.USER}", event.item_id AS {c.ITEM_ID}, event.type AS {c.TYPE}, event.weight AS {c.WEIGHT},
    event.timestamp AS {c.TIMESTAMP}, event.chosen AS {c.CHOSEN}
FROM asked CROSS JOIN LATERAL (
    (
        SELECT {_EVENT}, true AS chosen FROM interactions
        WHERE tenant_id = $1 AND user_id = asked.user_id
            AND occurred_at >= $2::timestamptz AND occurred_at < $3::timestamptz
    ) UNION ALL (
        SELECT {_EVENT}, false FROM interactions
        WHERE tenant_id = $1 AND user_id = asked.user_id AND occurred_at < $2::timestamptz
        ORDER BY occurred_at DESC, item_id COLLATE "C" DESC LIMIT $5::bigint
    )
) AS event
ORDER BY asked.place, event.timestamp, event.item_id COLLATE "C"
"""  # noqa: S608 - the numbers are of this code base

_AWAITS = """
WITH newest AS (
    SELECT release, min(published_at) AS published_at FROM release_models WHERE tenant_id = $1
    GROUP BY release ORDER BY release DESC LIMIT 1
)
SELECT EXISTS (
    SELECT FROM newest JOIN LATERAL (
        SELECT FROM interactions
        WHERE tenant_id = $1 AND occurred_at >= greatest(newest.published_at, (
            SELECT max(measured_at) FROM daily_accuracy WHERE tenant_id = $1 AND daily_accuracy.release = newest.release
        )) LIMIT 1
    ) AS came ON true
) AS awaits
"""

_ONLINE_METRICS = f"""
WITH answer AS (
    SELECT recommendation_id, coalesce(release, '') AS release, algorithm, cardinality(item_ids) AS items
    FROM impressions WHERE tenant_id = $1 AND created_at >= now() - interval '{ONLINE_DAYS} days'
), followed AS (
    SELECT recommendation_id, count(*) AS interactions
    FROM attributions WHERE tenant_id = $1 GROUP BY recommendation_id
)
SELECT release AS {c.RELEASE}, algorithm AS {c.ALGORITHM}, count(*) AS {c.ANSWERS}, sum(items)::bigint AS {c.SHOWN},
    count(interactions) AS {c.ANSWERS_FOLLOWED}, coalesce(sum(interactions), 0)::bigint AS {c.INTERACTIONS}
FROM answer LEFT JOIN followed USING (recommendation_id)
GROUP BY release, algorithm ORDER BY release DESC, algorithm
"""  # noqa: S608
