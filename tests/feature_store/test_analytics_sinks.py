"""Roll-ups count what has ended, once, in steps; answers are followed by what their users do next."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from feature_store.analytics_sinks import (
    KEPT_DAYS,
    ModelAccuracy,
    ReleasedModel,
    RollUpCounts,
    record_accuracy,
    record_release,
    roll_up_step,
)
from feature_store.analytics_sources import (
    ServingPeriod,
    online_metrics,
    serving_periods,
    tenants_with_outdated_accuracy,
)
from tests.feature_store.rows import add_interactions, add_items, add_tenant

NOW = datetime.now(UTC)
Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_tenant(connection, "acme")
        add_items(connection, "acme", {"i1": {}, "i2": {}})
        yield connection


def act(connection: Connection, user: str, item: str = "i1", ago: float = 0.0, answer: UUID | None = None) -> UUID:
    """An interaction so many hours ago; its id."""
    id_ = uuid4()
    connection.execute(
        "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, occurred_at, recommendation_id) "
        "VALUES ('acme', %s, %s, %s, 'click', %s, %s)",
        [id_, user, item, NOW - timedelta(hours=ago), answer],
    )
    return id_


def show(connection: Connection, user: str, *items: str, ago: float = 1.0, tenant: str = "acme", **more: Any) -> UUID:
    """An answer so many hours ago; its id."""
    id_ = uuid4()
    connection.execute(
        "INSERT INTO impressions (tenant_id, recommendation_id, user_id, algorithm, release, item_ids, scores, "
        "created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [
            *(tenant, id_, user, more.get("algorithm", "hybrid"), more.get("release", "r1")),
            *(list(items), [0.5] * len(items), NOW - timedelta(hours=ago)),
        ],
    )
    return id_


def attributed(connection: Connection) -> dict[UUID, UUID]:
    return dict(connection.execute("SELECT interaction_id, recommendation_id FROM attributions").fetchall())


def totals(connection: Connection) -> tuple[int, int, int]:
    """(users, interactions, shown)"""
    row = connection.execute("SELECT users, interactions, shown FROM analytics_totals").fetchone()
    assert row is not None
    return row


def test_a_second_roll_up_has_nothing_to_count(database_url: str, connection: Connection) -> None:
    act(connection, "ann")
    connection.execute("INSERT INTO users (tenant_id, id) VALUES ('acme', 'ann')")
    show(connection, "ann", "i1", "i2")
    assert roll_up_step(database_url, "acme") == RollUpCounts(users=1, interactions=1, shown=2, attributed=1)
    assert roll_up_step(database_url, "acme") == RollUpCounts()
    assert totals(connection) == (1, 1, 2)


def test_a_step_ends_with_the_transaction_that_reaches_its_size(database_url: str, connection: Connection) -> None:
    for user in range(5):
        act(connection, f"user-{user}")
    for _ in range(2):
        with connection.transaction():
            for user in range(10):
                act(connection, f"bulk-{user}")
        connection.execute("SELECT pg_current_xact_id()")  # a transaction that wrote nothing to count
    act(connection, "last")
    steps = []
    while (not steps or steps[-1].more) and len(steps) < 10:
        steps.append(roll_up_step(database_url, "acme", step_rows=3))
    assert [step.interactions for step in steps] == [3, 2, 10, 10, 1]
    assert totals(connection) == (0, 26, 0)


def test_who_was_active_long_ago_is_not_kept(database_url: str, connection: Connection) -> None:
    today = date(2030, 6, 1)
    for days in (0, KEPT_DAYS - 1, KEPT_DAYS, 400):
        at = datetime(2030, 6, 1, tzinfo=UTC) - timedelta(days=days)
        add_interactions(connection, "acme", [("ann", "i1")], at=at)
    roll_up_step(database_url, "acme", today)
    found = connection.execute("SELECT day FROM analytics_active_users ORDER BY day DESC").fetchall()
    assert [day for (day,) in found] == [today, today - timedelta(days=KEPT_DAYS - 1)]
    act(connection, "bob")
    roll_up_step(database_url, "acme", today + timedelta(days=1))
    assert connection.execute("SELECT min(day) FROM analytics_active_users WHERE user_id = 'ann'").fetchone() == (
        today,
    )
    assert totals(connection)[1] == 5


def test_a_deletion_waits_for_the_roll_up_that_counts_it_and_is_then_taken_back(
    database_url: str, connection: Connection
) -> None:
    act(connection, "ann")
    act(connection, "bob")
    roll_up_step(database_url, "acme")
    act(connection, "ann", "i2")
    with psycopg.connect(database_url) as deleting, deleting.transaction():
        deleting.execute("DELETE FROM interactions WHERE user_id = 'ann'")
        found: list[RollUpCounts] = []
        counting = threading.Thread(target=lambda: found.append(roll_up_step(database_url, "acme")))
        counting.start()
        counting.join(0.5)
        assert counting.is_alive()  # it would count what is about to go
    counting.join(10)
    assert found[0].interactions == 0
    assert totals(connection) == (0, 1, 0)
    assert connection.execute("SELECT user_id FROM analytics_active_users").fetchall() == [("bob",)]
    assert connection.execute("SELECT sum(active_users) FROM analytics_days").fetchone() == (1,)


def test_a_named_answer_is_followed_where_it_showed_the_item(database_url: str, connection: Connection) -> None:
    older, newer = show(connection, "ann", "i1", ago=2), show(connection, "ann", "i1", "i2", ago=1)
    named = act(connection, "ann", "i1", answer=older)
    other_device = act(connection, "ann-at-home", "i1", answer=older)
    not_shown = act(connection, "ann", "i2", answer=older)
    unknown = act(connection, "bob", "i1", answer=uuid4())
    assert roll_up_step(database_url, "acme").attributed == 3
    assert attributed(connection) == {named: older, other_device: older, not_shown: newer}
    assert unknown not in attributed(connection)


def test_an_interaction_follows_from_the_newest_answer_that_showed_its_user_the_item_lately(
    database_url: str, connection: Connection
) -> None:
    show(connection, "ann", "i1", ago=5)
    newest = show(connection, "ann", "i1", ago=3)
    show(connection, "ann", "i2", ago=2)
    show(connection, "bob", "i1", ago=2)
    show(connection, "old", "i1", ago=26)
    add_tenant(connection, "rival")
    show(connection, "cid", "i1", ago=1, tenant="rival")
    followed = act(connection, "ann", "i1", ago=1)
    act(connection, "ann", "i1", ago=6)  # before any answer
    act(connection, "old", "i1", ago=1)  # more than a day later
    act(connection, "cid", "i1")  # the answer was another tenant's
    assert roll_up_step(database_url, "acme").attributed == 1
    assert attributed(connection) == {followed: newest}


def test_an_attribution_goes_with_its_interaction(database_url: str, connection: Connection) -> None:
    show(connection, "ann", "i1")
    act(connection, "ann")
    roll_up_step(database_url, "acme")
    assert attributed(connection)
    connection.execute("DELETE FROM interactions")
    assert not attributed(connection)


def test_online_metrics_tell_how_the_answers_of_a_release_were_followed(
    database_url: str, connection: Connection
) -> None:
    show(connection, "ann", "i1", "i2", release="r2")
    show(connection, "bob", "i1", release="r2")
    show(connection, "cid", "i1", release="r1", algorithm="collaborative")
    show(connection, "old", "i1", release="r0", ago=24 * 31)
    show(connection, "dan", "i1", release=None, algorithm="popularity")
    for item in ("i1", "i2", "i2"):
        act(connection, "ann", item)
    act(connection, "dan")
    roll_up_step(database_url, "acme")
    rows = online_metrics(database_url, "acme").to_pylist()
    columns = (
        *("release", "algorithm", "impressions", "items_shown"),
        *("attributed_impressions", "attributed_interactions"),
    )
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("r2", "hybrid", 2, 3, 1, 3),
        ("r1", "collaborative", 1, 1, 0, 0),
        ("", "popularity", 1, 1, 1, 1),
    ]


def test_a_release_serves_until_the_next_one_day_by_day(database_url: str, connection: Connection) -> None:
    now = datetime(2030, 6, 3, 12, tzinfo=UTC)
    for release, at in (("r1", datetime(2030, 5, 1, tzinfo=UTC)), ("r2", datetime(2030, 6, 2, 3, tzinfo=UTC))):
        record_release(database_url, "acme", release, [ReleasedModel("hybrid", "1", 0.9)])
        connection.execute("UPDATE release_models SET published_at = %s WHERE release = %s", [at, release])
    midnights = [datetime(2030, 6, day, tzinfo=UTC) for day in (1, 2, 3)]
    assert serving_periods(database_url, "acme", now, days=3) == [
        ServingPeriod("r1", date(2030, 6, 1), midnights[0], midnights[1]),
        ServingPeriod("r1", date(2030, 6, 2), midnights[1], datetime(2030, 6, 2, 3, tzinfo=UTC)),
        ServingPeriod("r2", date(2030, 6, 2), datetime(2030, 6, 2, 3, tzinfo=UTC), midnights[2]),
        ServingPeriod("r2", date(2030, 6, 3), midnights[2], now),
    ]
    assert serving_periods(database_url, "nobody", now, days=3) == []


def test_measuring_is_due_after_interactions_under_the_newest_release(
    database_url: str, connection: Connection
) -> None:
    act(connection, "ann", ago=1)
    assert tenants_with_outdated_accuracy(database_url) == set()
    record_release(database_url, "acme", "r1", [ReleasedModel("hybrid", "1", 0.9)])
    assert tenants_with_outdated_accuracy(database_url) == set()
    connection.execute("UPDATE release_models SET published_at = now() - interval '1 day'")
    assert tenants_with_outdated_accuracy(database_url) == {"acme"}
    record_accuracy(database_url, "acme", NOW.date(), "r1", [ModelAccuracy("hybrid", 0.5, 1)])
    assert tenants_with_outdated_accuracy(database_url) == set()


@pytest.mark.parametrize("deleted", [True, False])
def test_a_tenant_that_is_gone_is_left_alone(database_url: str, connection: Connection, deleted: bool) -> None:
    if deleted:
        connection.execute("UPDATE tenants SET deleted_at = now()")
    tenant = "acme" if deleted else "nobody"
    with pytest.raises(LookupError, match=tenant):
        roll_up_step(database_url, tenant)
    with pytest.raises(LookupError, match=tenant):
        record_release(database_url, tenant, "r1", [])
    with pytest.raises(LookupError, match=tenant):
        record_accuracy(database_url, tenant, NOW.date(), "r1", [])
    assert connection.execute("SELECT count(*) FROM analytics_totals").fetchone() == (0,)


def test_a_database_that_was_restored_elsewhere_is_refused(database_url: str, connection: Connection) -> None:
    act(connection, "ann")
    roll_up_step(database_url, "acme")
    connection.execute("UPDATE analytics_totals SET next_xid = '999999999999'")
    with pytest.raises(ValueError, match="analytics_totals"):
        roll_up_step(database_url, "acme")
