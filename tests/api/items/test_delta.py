"""The catalogue delta is read in parts of bounded size, and no change is missed between two of them."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from api.database.engine import Database
from api.database.scope import TenantScope
from api.items.catalogue import CatalogueReader
from api.tenants.problems import TenantGone
from serving.contracts.messages import CatalogueDelta, CataloguePlace, ItemChange
from tests.feature_store.rows import add_items, add_tenant, delete_item

SCOPE = TenantScope("films")
START = CataloguePlace(0)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for tenant in ("films", "books"):
            add_tenant(connection, tenant)
            add_items(connection, tenant, {f"{tenant}-{number:02}": {"n": number} for number in range(10)})
        yield connection


def read(
    url: str, since: CataloguePlace = START, between: Callable[[], object] = lambda: None, **bounds: int
) -> list[CatalogueDelta]:
    """All parts of the delta; `between` is called once, after the first."""

    async def parts() -> list[CatalogueDelta]:
        database = Database(url, pool_min=1)
        await database.open()
        try:
            reader = CatalogueReader(database.pool, **bounds)
            found = [await reader.delta(SCOPE, since)]
            between()
            while not found[-1].complete:
                found.append(await reader.delta(SCOPE, found[-1].end))
            return found
        finally:
            await database.close()

    return asyncio.run(parts())


def ids(parts: list[CatalogueDelta]) -> list[str]:
    return [change.item_id for part in parts for change in part.changes]


def test_a_small_delta_is_one_part(connection: psycopg.Connection[Any], database_url: str) -> None:
    (whole,) = read(database_url)
    assert (whole.since, whole.version, whole.complete) == (0, 1, True)
    assert whole.changes[3] == ItemChange("films-03", 1, True, {"n": 3})
    assert read(database_url, CataloguePlace(1)) == [CatalogueDelta(1, 1, [])]


@pytest.mark.parametrize("items", [1, 3, 5, 10, 11])
def test_items_of_one_version_are_cut_into_parts_without_a_gap(
    connection: psycopg.Connection[Any], database_url: str, items: int
) -> None:
    add_items(connection, "films", {"films-00": {"n": 0}, "films-new": {"n": 1}})
    parts = read(database_url, part_items=items)
    assert max(len(part.changes) for part in parts) <= items
    assert ids(parts) == [*(f"films-{number:02}" for number in range(1, 10)), "films-00", "films-new"]
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert parts[-1].version == 2


def test_a_part_has_at_most_so_many_bytes_of_metadata_and_at_least_one_item(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    add_items(connection, "films", {f"films-{number:02}": {"text": "x" * 1_000} for number in range(10)})
    assert [len(part.changes) for part in read(database_url, part_bytes=3_500)] == [3, 3, 3, 1]
    assert [len(part.changes) for part in read(database_url, part_bytes=10)] == [1] * 10


def test_what_changes_between_two_parts_is_in_a_later_one(
    connection: psycopg.Connection[Any], database_url: str
) -> None:
    def between() -> None:
        add_items(connection, "films", {"films-00": {"n": "changed"}, "films-07": {"n": "changed"}})
        delete_item(connection, "films", "films-01")
        connection.execute("UPDATE items SET version = 3 WHERE tenant_id = 'films' AND id = 'films-01'")

    parts = read(database_url, part_items=4, between=between)
    newest = {change.item_id: change for part in parts for change in part.changes}
    assert newest["films-00"] == ItemChange("films-00", 2, True, {"n": "changed"})
    assert newest["films-07"] == ItemChange("films-07", 2, True, {"n": "changed"})
    assert newest["films-01"] == ItemChange("films-01", 3, False, None)
    assert ids(parts).count("films-07") == 1
    assert parts[-1].version == 3


def test_a_tenant_that_is_gone_has_no_delta(connection: psycopg.Connection[Any], database_url: str) -> None:
    connection.execute("DELETE FROM items WHERE tenant_id = 'films'")
    connection.execute("DELETE FROM catalogues WHERE tenant_id = 'films'")
    with pytest.raises(TenantGone):
        read(database_url)
