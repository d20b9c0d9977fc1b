"""A release that users follow less than before, or that ranks worse than it promised, is noticed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg

from pipelines.defs.monitoring.flag import DriftState
from pipelines.defs.monitoring.online import followed_answers, online_accuracy
from pipelines.resources import Installation
from tests.pipelines.conftest import TENANT

Connection = psycopg.Connection[Any]
FIRST = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAYS, ANSWERS = 40, 200


def answer(connection: Connection, day: int, followed: int) -> None:
    """Answers of one day, of which so many are followed; the last of a fallback, which no model gave."""
    connection.execute(
        "WITH shown AS (INSERT INTO impressions (tenant_id, recommendation_id, user_id, algorithm, release, item_ids, "
        "scores, created_at) SELECT %(tenant)s, gen_random_uuid(), 'ann', 'hybrid', "
        "CASE WHEN n <= %(answers)s THEN 'r1' END, '{a}', '{0.5}', %(at)s "
        "FROM generate_series(1, %(answers)s + 5) AS n RETURNING recommendation_id, release) "
        "INSERT INTO attributions (tenant_id, interaction_id, recommendation_id) "
        "SELECT %(tenant)s, gen_random_uuid(), recommendation_id FROM shown WHERE release = 'r1' LIMIT %(followed)s",
        {"tenant": TENANT, "answers": ANSWERS, "followed": followed, "at": FIRST + timedelta(days=day)},
    )


def test_answers_that_fewer_users_follow_are_noticed_on_the_first_day(
    installation: Installation, connection: Connection
) -> None:
    rng = np.random.default_rng(0)
    days = [(FIRST + timedelta(days=day)).date() for day in range(DAYS + 1)]
    assert followed_answers(installation, TENANT, days, days[-1]) is None
    for day in range(DAYS - 1):
        answer(connection, day, int(rng.binomial(ANSWERS, 0.4)))
    answer(connection, DAYS - 1, int(ANSWERS * 0.2))
    answer(connection, DAYS, 0)  # will be followed until tomorrow
    found = followed_answers(installation, TENANT, days, days[-1])
    assert found is not None
    assert found.events.tolist() == [ANSWERS] * DAYS + [0]
    assert np.flatnonzero(found.drifted).tolist() == [DAYS - 1]


def test_an_online_auc_is_held_against_that_of_the_training(installation: Installation, connection: Connection) -> None:
    until = FIRST.date()
    connection.execute(
        "INSERT INTO release_models (tenant_id, release, family, version, auc) VALUES "
        "(%(t)s, 'r1', 'hybrid', '1', 0.5), (%(t)s, 'r2', 'hybrid', '2', 0.9), "
        "(%(t)s, 'r2', 'collaborative', '2', 0.8)",
        {"t": TENANT},
    )
    for age, hybrid, collaborative in ((0, 0.7, 0.75), (1, 0.6, 0.79), (30, 0.1, 0.1)):
        connection.execute(
            "INSERT INTO daily_accuracy (tenant_id, day, release, family, auc, users) VALUES "
            "(%(t)s, %(day)s, 'r2', 'hybrid', %(one)s, 100), (%(t)s, %(day)s, 'r2', 'collaborative', %(other)s, 100), "
            "(%(t)s, %(day)s, 'r1', 'hybrid', 0.2, 100)",
            {"t": TENANT, "day": until - timedelta(days=age), "one": hybrid, "other": collaborative},
        )
    found = online_accuracy(installation, TENANT, until)
    assert [(each.family, each.users, each.is_worse) for each in found] == [
        ("collaborative", 200, False),
        ("hybrid", 200, True),
    ]
    assert found[1].text == "online AUC 0.650 (0.563 to 0.737) of 200 users, 0.900 at training"


def test_a_release_that_does_badly_does_not_keep_the_next_one_back() -> None:
    day = FIRST.date()
    state = DriftState().after(day, day, ["accuracy", "followed"], "stop_publishing")
    assert not state.stops_publishing
    assert state.after(day, day, ["accuracy", "volume"], "stop_publishing").stops_publishing
