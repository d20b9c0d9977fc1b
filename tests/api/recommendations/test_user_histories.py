"""Kept histories: whatever writes interactions, and whenever, a view is what the interactions say at that moment."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.database.migrate import upgrade
from api.recommendations import history_store
from configs.history import HistorySettings
from feature_store.columns import INTERACTION_TYPES as TYPES
from serving.contracts.histories import read_history, read_ids
from tests.api.conftest import Tenants
from tests.api.recommendations.shop import ITEMS, OLD_ADD, SHOP, START, USERS, Event, Shop
from tests.feature_store.rows import add_items
from tests.fixtures.search import tables_with


def events(moments: st.SearchStrategy[int]) -> st.SearchStrategy[Event]:
    """Each event has a moment of its own, or that of the same item's neighbours: the order of equal ones is by item."""
    return st.builds(
        lambda user, item, type_, value, moment: Event(
            user, ITEMS[item], type_, value, START + timedelta(seconds=moment, microseconds=item)
        ),
        st.sampled_from(USERS),
        st.integers(0, len(ITEMS) - 1),
        st.sampled_from(TYPES),
        st.sampled_from((None, 0.0, 0.3, 1.0)),
        moments,
    )


ANY = events(st.integers(0, 10**9))
STEPS = st.one_of(
    st.tuples(st.just("single"), ANY),
    st.tuples(st.just("batch"), ANY, ANY, ANY),
    st.tuples(st.just("many"), st.integers(0, 2**32)),
    st.tuples(st.just("import"), ANY, ANY),
    st.tuples(st.just("import again")),
    st.tuples(st.just("old"), ANY),
    st.tuples(st.just("correct"), st.sampled_from((None, 0.5))),
    st.tuples(st.just("move"), st.sampled_from(USERS)),
    st.tuples(st.just("delete")),
    st.tuples(st.just("erase"), st.sampled_from(USERS)),
    st.tuples(st.just("keep")),
)


async def step(shop: Shop, name: str, *details: Any) -> None:
    oldest = next(iter(shop.events), None)
    match name:
        case "single":
            await shop.single(details[0])
        case "batch":
            await shop.batch(*details)
        case "many":  # more than a history holds, more than is scanned
            some = random.Random(details[0])
            await shop.batch(
                *(
                    Event(
                        "ann",
                        some.choice(ITEMS),
                        "purchase" if some.random() < 0.2 else "view",
                        None,
                        START + timedelta(seconds=some.random() * 10**9),
                    )
                    for _ in range(35)
                )
            )
        case "import":
            await shop.load(*((uuid4(), event) for event in details))
        case "import again":
            await shop.load(*shop.events.items())
        case "old":
            await shop.old(details[0])
        case "correct" if oldest is not None:
            shop.sql("UPDATE interactions SET value = %s WHERE id = %s", details[0], oldest)
            shop.events[oldest] = shop.events[oldest]._replace(value=details[0])
        case "move" if oldest is not None and shop.sql("SELECT 1 FROM users WHERE id = %s", details[0]):
            shop.sql("UPDATE interactions SET user_id = %s WHERE id = %s", details[0], oldest)
            shop.events[oldest] = shop.events[oldest]._replace(user=details[0])
        case "delete" if oldest is not None:
            shop.sql("DELETE FROM interactions WHERE id = %s", oldest)
            del shop.events[oldest]
        case "erase":
            await shop.erase(details[0])
        case "keep":
            await shop.store.flush()


@pytest.fixture
def url(database_url: str) -> str:
    Tenants(database_url).create(SHOP.tenant_id)
    with psycopg.connect(database_url) as connection:
        add_items(connection, SHOP.tenant_id, {id_: {} for id_ in ITEMS})
    return database_url


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=3, max_size=14), st.booleans())
def test_a_view_is_what_the_interactions_say_after_every_write(
    url: str, steps: list[tuple[Any, ...]], always_kept: bool
) -> None:
    async def run() -> None:
        async with Shop.open(url) as shop:
            shop.sql("DELETE FROM interactions")
            shop.sql("DELETE FROM users")
            for each in steps:
                await step(shop, *each)
                await shop.check()
                if always_kept:
                    await shop.store.flush()

    asyncio.run(run())


def running(url: str, work: Callable[[Shop], Awaitable[None]], **bounds: Any) -> None:
    async def run() -> None:
        async with Shop.open(url, HistorySettings(**{"max_events": 4, "max_seen": 3, **bounds})) as shop:
            await work(shop)

    asyncio.run(run())


def clicked(user: str, *items: str) -> list[Event]:
    return [Event(user, item, "click", None, START + timedelta(days=day)) for day, item in enumerate(items)]


async def keep(shop: Shop, *users: str) -> None:
    """Read the users so often that their histories are worth keeping, and write them."""
    for user in users * 2:
        await shop.reader.view(SHOP, user, "all")
    await shop.store.flush()


async def kept(shop: Shop, user: str = "ann") -> bool:
    """Whether reads of the user find a row. Those that do not, offer what they have built."""
    await shop.store.flush()
    for _ in range(2):
        await shop.reader.view(SHOP, user, "all")
    return not shop.store._waiting


def test_a_history_that_was_built_twice_is_found_by_the_next_read(url: str) -> None:
    async def work(shop: Shop) -> None:
        await shop.batch(*clicked("ann", "a", "b"))
        await shop.reader.view(SHOP, "ann", "all")
        assert not shop.store._waiting  # an interaction may come before anybody reads it
        await keep(shop, "ann")
        assert await kept(shop)
        await keep(shop, "nobody")
        assert shop.sql("SELECT user_id FROM user_histories") == [("ann",)]
        await shop.check()

    running(url, work)


LATER = Event("ann", "c", "click", None, START + timedelta(days=9))


@pytest.mark.parametrize(
    "written",
    [("single", LATER), ("batch", LATER), ("import", LATER), ("old", LATER), ("correct", 0.5), ("delete",)],
    ids=lambda written: written[0],
)
def test_every_kind_of_write_makes_a_kept_history_out_of_date(url: str, written: tuple[Any, ...]) -> None:
    async def work(shop: Shop) -> None:
        await shop.batch(*clicked("ann", "a", "b"))
        await keep(shop, "ann")
        assert await kept(shop)
        await step(shop, *written)
        assert not await kept(shop)
        await shop.check()

    running(url, work)


def test_a_row_of_other_bounds_is_not_used(url: str) -> None:
    async def fill(shop: Shop) -> None:
        await shop.batch(*clicked("ann", "a", "b", "c"))
        await keep(shop, "ann")

    async def read(shop: Shop) -> None:
        assert [each.item_id for each in read_history((await shop.reader.view(SHOP, "ann", "all")).history)] == [
            "b",
            "c",
        ]

    running(url, fill)
    running(url, read, max_events=2)


def test_writers_and_readers_side_by_side_never_lose_a_click(url: str) -> None:
    """Two processes write, each reads what it wrote, and both keep what they read, as two API processes do."""

    async def work(first: Shop) -> None:
        async with Shop.open(url, HistorySettings(max_events=500)) as second:
            done = asyncio.Event()

            async def write(shop: Shop, name: str, add: Callable[[Event], Awaitable[None]]) -> None:
                for n in range(40):
                    await add(
                        Event("ann", ITEMS[n % 3], "click", None, START + timedelta(seconds=random.random() * 1e6))
                    )
                    mine = len(shop.events)
                    for reading in (first, second):
                        history = read_history((await reading.reader.view(SHOP, "ann", "all")).history)
                        assert len(history) >= mine, name
                        others = len(first.events) + len(second.events)
                        assert len(history) <= others + 2, name  # a write may have committed that is not counted yet

            async def flush(shop: Shop) -> None:
                while not done.is_set():
                    await shop.store.flush()
                    await asyncio.sleep(0)

            keeping = [asyncio.create_task(flush(shop)) for shop in (first, second)]
            await asyncio.gather(write(first, "single", first.single), write(second, "old", second.old))
            done.set()
            await asyncio.gather(*keeping)
            first.events |= second.events
            for shop in (first, second):
                assert len(read_history((await shop.reader.view(SHOP, "ann", "all")).history)) == 80
            await keep(first, "ann")
            assert await kept(first)
            assert len(read_history((await second.reader.view(SHOP, "ann", "all")).history)) == 80

    running(url, work, max_events=500)


def test_an_erasure_leaves_no_history_and_none_that_was_built_before_is_kept(url: str) -> None:
    async def work(shop: Shop) -> None:
        secret = "only-ann-had-this"
        with psycopg.connect(shop.url) as connection:
            add_items(connection, SHOP.tenant_id, {secret: {}})
        await shop.batch(*clicked("ann", secret, "a"))
        await keep(shop, "ann")
        assert tables_with(shop.url, secret) == {"items", "interactions", "user_histories"}
        await shop.single(Event("ann", "b", "view", None, START))
        assert not await kept(shop)  # built, and not yet written
        await shop.erase("ann")
        await shop.store.flush()
        assert tables_with(shop.url, secret) == {"items"}
        await shop.check()

    running(url, work)


def test_a_history_built_of_an_erased_user_is_not_kept_for_the_new_user_of_that_id(url: str) -> None:
    async def work(shop: Shop) -> None:
        await shop.single(Event("ann", "a", "view", None, START))
        assert not await kept(shop)  # built at version 0, and not yet written
        await shop.erase("ann")
        await shop.single(Event("ann", "b", "view", None, START))  # at version 0 again
        await shop.store.flush()
        assert shop.sql("SELECT 1 FROM user_histories") == []
        await shop.check()

    running(url, work)


def test_what_waits_to_be_kept_is_bounded(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(shop: Shop) -> None:
        await shop.batch(*clicked("ann", "a"), *clicked("bøb", "b"))
        assert not await kept(shop)
        monkeypatch.setattr(history_store, "MAX_WAITING_BYTES", shop.store._bytes)
        for _ in range(2):
            await shop.reader.view(SHOP, "bøb", "all")
        assert [user for _, user in shop.store._waiting] == ["ann"]
        await shop.store.flush()
        assert (shop.store._waiting, shop.store._bytes) == ({}, 0)
        monkeypatch.setattr(history_store, "MAX_REMEMBERED", 2)
        for number in range(5):
            await shop.single(Event(f"user-{number}", "a", "view", None, START))
            await shop.reader.view(SHOP, f"user-{number}", "all")
        assert len(shop.store._built_once) == 2

    running(url, work)


def test_a_tenants_default_policy_counts_from_its_change_on(url: str) -> None:
    async def work(shop: Shop) -> None:
        await shop.batch(Event("ann", "a", "click", None, START), Event("ann", "b", "purchase", None, START))
        for policy, seen in (("all", ["b", "a"]), ("bought", ["b"]), ("none", [])):
            shop.sql("UPDATE tenants SET exclude_seen = %s", policy)
            for _ in range(3):
                view = await shop.reader.view(SHOP, "ann", None)
                assert (view.exclude_seen, read_ids(view.seen)) == (policy, seen)
                await shop.store.flush()

    running(url, work)


def old_rows(url: str, users: Sequence[str]) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO tenants (id, plan) VALUES ('shop', 'unlimited')")
        connection.execute("INSERT INTO catalogues (tenant_id) VALUES ('shop')")
        add_items(connection, SHOP.tenant_id, {id_: {} for id_ in ITEMS})
        for user in users:
            for event in clicked(user, "a", "b"):
                connection.execute(OLD_ADD, {**event._asdict(), "id": uuid4()})


def test_a_database_of_the_revision_before_is_read_right_also_while_an_old_process_writes(
    empty_database_url: str,
) -> None:
    url = empty_database_url
    upgrade(url, "0010")
    old_rows(url, USERS)
    upgrade(url)

    async def work(shop: Shop) -> None:
        shop.events = {uuid4(): event for user in USERS for event in clicked(user, "a", "b")}
        await shop.check()
        await shop.store.flush()
        await shop.check()
        assert await kept(shop)
        await shop.old(Event("ann", "c", "purchase", None, START - timedelta(days=30)))  # older than what is there
        await shop.check()
        await shop.store.flush()
        await shop.check()

    running(url, work)
