"""What is read of a user for one request: newest first by the bounds, oldest first in the result."""

import asyncio
from typing import Any

import pytest

from api.database.engine import Database
from api.database.scope import TenantScope
from api.recommendations.history import HistoryReader, UserView
from configs.history import HistorySettings
from serving.contracts.histories import read_history, read_ids
from tests.fixtures.backend import Backend


def view(backend: Backend, exclude_seen: str | None = None, tenant: str = "shop", **bounds: Any) -> UserView:
    async def read() -> UserView:
        database = Database(backend.url, pool_min=1)
        await database.open()
        try:
            reader = HistoryReader(database.pool, HistorySettings(**bounds))
            return await reader.view(TenantScope(tenant), "ann", exclude_seen)
        finally:
            await database.close()

    return asyncio.run(read())


@pytest.fixture
def shop(backend: Backend) -> Backend:
    """Ann viewed a, liked b, bought c, on three days, and then viewed a once more."""
    backend.add_items({id_: {} for id_ in "abcd"})
    for day, (item, type_) in enumerate([("a", "view"), ("b", "like"), ("c", "purchase"), ("a", "view")], start=1):
        backend.interact("ann", item, type_=type_, timestamp=f"2025-01-0{day}T00:00:00Z")
    backend.interact("bob", "d")
    return backend


def test_events_are_the_users_own_oldest_first_with_their_weights(shop: Backend) -> None:
    shop.interact("ann", "d", timestamp="2025-01-05T00:00:00Z", value=0.25)
    events = read_history(view(shop).history)
    assert [(event.item_id, event.type, round(event.weight, 6)) for event in events] == [
        ("a", "view", 0.25),
        ("b", "like", 0.8),
        ("c", "purchase", 1.0),
        ("a", "view", 0.25),
        ("d", "like", 0.25),
    ]
    assert events[0].timestamp == 1_735_689_600_000_000  # microseconds


def test_the_bound_keeps_the_newest_events(shop: Backend) -> None:
    assert [event.item_id for event in read_history(view(shop, max_events=2).history)] == ["c", "a"]


def test_events_of_one_moment_are_in_the_order_of_their_items(shop: Backend) -> None:
    shop.interact("ann", "d", "b", "a", "c", timestamp="2025-02-01T00:00:00Z")
    assert [event.item_id for event in read_history(view(shop, max_events=4).history)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("exclude_seen", "seen"), [("none", []), ("bought", ["c"]), ("all", ["a", "c", "b"])])
def test_seen_items_are_those_that_are_asked_for_newest_first(
    shop: Backend, exclude_seen: str, seen: list[str]
) -> None:
    assert read_ids(view(shop, exclude_seen).seen) == seen


def test_the_bound_on_seen_counts_items_not_events(shop: Backend) -> None:
    shop.interact("ann", *["a"] * 5, timestamp="2025-02-01T00:00:00Z")
    assert read_ids(view(shop, "all", max_events=1, max_seen=2).seen) == ["a", "c"]


def test_nobody_has_an_empty_view_of_the_tenants_catalogue(shop: Backend) -> None:
    shop.sql("DELETE FROM interactions")
    nothing = view(shop)
    assert (read_history(nothing.history), read_ids(nothing.seen), nothing.exclude_seen) == ([], [], "all")
    assert nothing.catalogue_version == shop.sql("SELECT version FROM catalogues")[0][0]
