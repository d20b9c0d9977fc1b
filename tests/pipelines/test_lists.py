"""The pipeline makes lists and measures segments, from the database to the rows that the API reads."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg
import pytest

from feature_store.list_sources import list_states, segment_rules
from pipelines.definitions import build_definitions
from pipelines.defs.lists.sensors import MAX_AGE, outdated
from pipelines.defs.lists.steps import make_lists, measure_segments
from pipelines.jobs import LISTS
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from tests.feature_store.rows import add_interactions, add_items, add_tenant
from tests.pipelines.conftest import TENANT

Connection = psycopg.Connection[Any]
NOON = datetime(2030, 6, 3, 12, tzinfo=UTC)


@pytest.fixture
def shop(connection: Connection) -> Connection:
    """Tea and mugs were bought together by four in the newest week; salt by twenty a fortnight before."""
    add_items(connection, TENANT, {"tea": {"kind": "food"}, "mug": {"kind": "home"}, "salt": {"kind": "food"}})
    buy(connection, [f"u{number}" for number in range(20)], "salt", days_ago=14)
    for item in ("tea", "mug"):
        buy(connection, [f"u{number}" for number in range(4)], item, days_ago=1)
    return connection


def buy(connection: Connection, users: Sequence[str], item: str, days_ago: int) -> None:
    for user in users:
        connection.execute("INSERT INTO users (tenant_id, id) VALUES (%s, %s) ON CONFLICT DO NOTHING", [TENANT, user])
    at = NOON - timedelta(days=days_ago)
    add_interactions(connection, TENANT, [(user, item) for user in users], kind="purchase", at=at)


def add_segment(connection: Connection, kind: str, filter_: Any, behaviour: Any) -> str:
    id_ = str(uuid4())
    connection.execute(
        "INSERT INTO segments (tenant_id, id, name, kind, filter, behaviour) VALUES (%s, %s, %s, %s, %s, %s)",
        [TENANT, id_, f"{kind} of a test", kind, *(each and json.dumps(each) for each in (filter_, behaviour))],
    )
    return id_


def run(installation: Installation, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    job = build_definitions(installation).resolve_job_def(LISTS)
    result = job.execute_in_process(instance=instance, partition_key=TENANT)
    assert result.success
    return result


def tick(installation: Installation, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    context = dg.build_sensor_context(instance=instance, resources={"installation": installation}, cursor=cursor)
    return build_definitions(installation).resolve_sensor_def("outdated_lists")(context)


def stored(connection: Connection, source: str) -> dict[str, list[str]]:
    rows = connection.execute("SELECT of_item, item_ids FROM item_lists WHERE source = %s", [source]).fetchall()
    return dict(rows)


def members(connection: Connection, id_: str) -> list[str]:
    query = "SELECT user_id FROM segment_users WHERE segment_id = %s ORDER BY user_id"
    return [user for (user,) in connection.execute(query, [id_])]


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


TWICE = {"interactionTypes": ["purchase"], "atLeast": 2, "days": 30}


def test_a_run_makes_lists_and_segments_and_shows_their_sizes(
    installation: Installation, shop: Connection, instance: dg.DagsterInstance
) -> None:
    twice_food = add_segment(shop, "users", {"kind": "food"}, TWICE)
    food = add_segment(shop, "items", {"kind": "food"}, None)
    result = run(installation, instance)
    assert stored(shop, "trending") == {"": ["mug", "tea"]}
    assert stored(shop, "bought-together") == {"": [], "mug": ["tea"], "tea": ["mug"]}
    assert stored(shop, f"segment:{twice_food}") == {"": ["mug", "tea", "salt"]}
    assert members(shop, twice_food) == ["u0", "u1", "u2", "u3"]
    lists, segments = metadata(result, "item_lists"), metadata(result, "segment_members")
    assert (lists["trending_items"], lists["items_bought_together"], lists["type_of_baskets"]) == (2, 2, "purchase")
    assert (segments[f"size_{twice_food}"], segments[f"size_{food}"]) == (4, 2)
    assert "u0" not in str(lists) + str(segments)
    sizes = shop.execute("SELECT id::text, size FROM segments WHERE measured_at IS NOT NULL").fetchall()
    assert dict(sizes) == {twice_food: 4, food: 2}


def test_who_left_a_segment_goes_and_who_was_erased_after_the_export_does_not_come(
    installation: Installation, shop: Connection, instance: dg.DagsterInstance
) -> None:
    id_ = add_segment(shop, "users", None, TWICE)
    run(installation, instance)
    assert members(shop, id_) == ["u0", "u1", "u2", "u3"]
    shop.execute("DELETE FROM users WHERE id IN ('u1', 'u2')")
    assert members(shop, id_) == ["u0", "u3"]
    shop.execute("INSERT INTO tombstones (tenant_id, user_id, erased_at) VALUES (%s, 'u1', now())", [TENANT])
    shop.execute("INSERT INTO users (tenant_id, id) VALUES (%s, 'u1')", [TENANT])  # another person, with the same id
    shop.execute("UPDATE segments SET behaviour = jsonb_set(behaviour, '{atLeast}', '4')")
    buy(shop, ["u3"], "salt", days_ago=0)
    measure_segments(installation, TENANT)
    assert members(shop, id_) == []  # the lake has not seen the fourth purchase yet
    shop.execute("UPDATE segments SET behaviour = jsonb_set(behaviour, '{atLeast}', '2')")
    measure_segments(installation, TENANT)
    assert members(shop, id_) == ["u0", "u3"]
    run(installation, instance)
    assert members(shop, id_) == ["u0", "u3"]


def test_a_segment_that_changes_while_it_is_measured_is_left_to_the_next_run(
    installation: Installation, shop: Connection, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(installation, instance)
    id_ = add_segment(shop, "users", None, TWICE)
    old = segment_rules(installation.database_url(), TENANT)
    shop.execute("UPDATE segments SET updated_at = clock_timestamp()")
    monkeypatch.setattr("pipelines.defs.lists.steps.segment_rules", lambda url, tenant: old)
    (found,) = measure_segments(installation, TENANT)
    assert (found.size, found.stored, members(shop, id_)) == (4, False, [])
    assert list_states(installation.database_url())[0].waiting_since is not None


def test_lists_are_due_when_something_is_new(
    installation: Installation, shop: Connection, instance: dg.DagsterInstance
) -> None:
    def due(later: timedelta) -> list[str]:
        return [state.tenant_id for state in outdated(installation, datetime.now(UTC) + later)]

    assert due(timedelta(0)) == [TENANT]
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    assert [request.partition_key for request in tick(installation, instance).run_requests] == [TENANT]
    run(installation, instance)
    assert due(2 * MAX_AGE) == []
    assert tick(installation, instance).skip_reason.skip_message == "all lists are up to date"
    add_interactions(shop, TENANT, [("u0", "tea")])
    assert (due(timedelta(0)), due(2 * MAX_AGE)) == ([], [TENANT])
    id_ = add_segment(shop, "items", {"kind": "food"}, None)
    assert due(timedelta(0)) == [TENANT]
    shop.execute("DELETE FROM segments WHERE id = %s", [id_])
    assert due(timedelta(0)) == []
    shop.execute("UPDATE tenants SET deleted_at = now()")
    assert due(2 * MAX_AGE) == []
    with pytest.raises(LookupError, match="no tenant acme"):
        make_lists(installation, TENANT)


def test_a_tick_asks_for_a_bounded_number_of_runs_and_the_next_one_goes_on(
    installation: Installation, shop: Connection, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next tick goes on although lists of the first tenants are still outdated, as after failed runs."""
    monkeypatch.setattr("pipelines.defs.lists.sensors.MAX_REQUESTS", 1)
    add_tenant(shop, "zeta")
    add_items(shop, "zeta", {"tea": {}})
    shop.execute("INSERT INTO users (tenant_id, id) VALUES ('zeta', 'u0')")
    add_interactions(shop, "zeta", [("u0", "tea")], kind="purchase", at=NOON)
    instance.add_dynamic_partitions(TENANTS, [TENANT, "zeta"])
    asked, cursor = [], None
    for _ in range(3):
        result = tick(installation, instance, cursor)
        asked += [request.partition_key for request in result.run_requests]
        cursor = result.cursor
    assert asked == [TENANT, "zeta", TENANT]
