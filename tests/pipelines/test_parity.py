"""Requests and training see the same histories, and where they do not, the number of users who differ is told."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest

from api.recommendations.history_sql import VIEWS
from feature_store import exports
from feature_store.online import form_of
from pipelines.definitions import build_definitions
from pipelines.defs.monitoring.parity import measure_parity
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from tests.feature_store.rows import add_interactions, add_items
from tests.pipelines.conftest import TENANT

Connection = psycopg.Connection[Any]
START = datetime(2024, 1, 1, tzinfo=UTC)
USERS = ("ann", "bob", "cy")


@pytest.fixture
def trained(installation: Installation, instance: dg.DagsterInstance, connection: Connection) -> Installation:
    """Ann has more events than a history holds; bob has items that are not in the catalogue; cy has equal times,
    and one item twice at one of them. Its first item came to the catalogue last, so its position is not that of its id.
    """
    add_items(connection, TENANT, {f"item-{number}": {} for number in range(40)})
    for user in USERS:
        connection.execute("INSERT INTO users (tenant_id, id, history_version) VALUES (%s, %s, 1)", [TENANT, user])
    for number in range(installation.history.max_events + 30):
        at = START + timedelta(minutes=number)
        add_interactions(connection, TENANT, [("ann", f"item-{number % 40}")], at=at, value=(number % 7) / 7)
    for number in range(20):
        item = "gone" if number % 3 == 0 else f"item-{number}"
        add_interactions(connection, TENANT, [("bob", item)], at=START + timedelta(hours=number), kind="purchase")
    add_interactions(connection, TENANT, [("cy", f"item-{number}") for number in range(15, 5, -1)], at=START)
    for kind in ("purchase", "view", "click"):
        add_interactions(connection, TENANT, [("cy", "item-9")], at=START, kind=kind)
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    keys = [dg.AssetKey(name) for name in ("lake_interactions", "lake_items", "feature_snapshot")]
    job = build_definitions(installation).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, partition_key=TENANT, asset_selection=keys).success
    add_items(connection, TENANT, {"a-late-item": {}})
    add_interactions(connection, TENANT, [("cy", "a-late-item")], at=START)
    assert job.execute_in_process(instance=instance, partition_key=TENANT, asset_selection=keys).success
    return installation


def keep_histories(connection: Connection, installation: Installation) -> None:
    """Build the histories as requests do, and keep them, as the API does in the background."""
    settings = installation.history
    constants = [form_of(settings), settings.max_events, settings.max_seen, settings.max_scanned]
    cursor = psycopg.RawCursor(connection)
    wanted = [[TENANT] * len(USERS), list(USERS), [None] * len(USERS)]
    for user, row in zip(USERS, cursor.execute(VIEWS, [*wanted, *constants]).fetchall(), strict=True):
        connection.execute(
            "INSERT INTO user_histories (tenant_id, user_id, version, form, events, seen, bought) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [TENANT, user, row[5], constants[0], row[2], row[3], row[4]],
        )


def test_histories_are_equal_also_after_later_events_and_exports(trained: Installation, connection: Connection) -> None:
    keep_histories(connection, trained)
    found = measure_parity(trained, TENANT)
    assert found.holds, found.text
    assert found.counts is not None
    assert (found.counts.users, found.counts.kept) == (3, 3)
    assert found.counts.events == (trained.history.max_events - 1) + 13 + 14  # ann's oldest may be one of several

    now = datetime.now(UTC)
    add_interactions(connection, TENANT, [("ann", "item-1"), ("bob", "item-2"), ("dan", "item-3")], at=now)
    add_interactions(connection, TENANT, [("bob", "item-9")], at=START)  # an event that arrived late
    connection.execute("UPDATE users SET history_version = history_version + 1 WHERE id <> 'cy'")
    exports.export_interactions(trained.database_url(), trained.paths.lake, TENANT)
    later = measure_parity(trained, TENANT)
    assert later.holds, later.text
    assert later.counts is not None
    assert (later.counts.users, later.counts.kept) == (3, 1)


def test_differences_are_counted_by_user_and_side(trained: Installation, connection: Connection) -> None:
    keep_histories(connection, trained)
    connection.execute("UPDATE interactions SET value = 0.123 WHERE user_id = 'bob' AND item_id = 'item-1'")
    connection.execute("DELETE FROM interactions WHERE user_id = 'cy' AND item_id IN ('item-7', 'item-8')")
    found = measure_parity(trained, TENANT)
    assert found.text.startswith("2 users differ: 3 events only in training, 1 only in requests, 0 in")
    connection.execute("DELETE FROM users WHERE id = 'cy'")
    assert measure_parity(trained, TENANT).text.startswith("1 users differ")
    (trained.paths.lake / f"tenant={TENANT}" / "items" / "2.parquet").unlink()
    assert measure_parity(trained, TENANT).text == "the lake has changed since the newest snapshot was built"


def test_an_order_within_one_moment_is_compared_too(trained: Installation, connection: Connection) -> None:
    connection.execute(
        "UPDATE interactions SET id = '00000000-0000-4000-8000-000000000000' WHERE id = "
        "(SELECT max(id::text)::uuid FROM interactions WHERE user_id = 'cy' AND item_id = 'item-9')"
    )
    found = measure_parity(trained, TENANT)
    assert found.text.startswith("1 users differ: 0 events only in training, 0 only in requests, 4 in another order")
