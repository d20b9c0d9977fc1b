"""A catalogue delta that is too large for one message reaches the model server in parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from pydantic import SecretStr

from configs.serving import ServingSettings
from serving.application import BatchApplication
from serving.client import ServingClient
from serving.contracts.messages import (
    BatchRequest,
    CatalogueDelta,
    CataloguePlace,
    ItemChange,
    ServingUnavailable,
    SimilarQuery,
)
from serving.contracts.releases import StoreListing
from serving.contracts.version_1 import VERSION_1
from serving.overlay import Catalogue
from serving.predictor import Predictor
from serving.watch import ReleaseWatch
from tests.fixtures.releases import CATALOGUE_VERSION, TENANT, item_id
from tests.fixtures.scripted_server import running

pytestmark = pytest.mark.fit

SETTINGS = ServingSettings(
    url="http://127.0.0.1:1", patience_seconds=30, timeout_seconds=30, secret=SecretStr("secret of these tests")
)
MAX_BODY = 1_500
"""Bytes that the server of these tests takes: some changes, and far fewer than there are."""
QUERY = SimilarQuery("horror-3", 100)


def large(version: int, name: str) -> list[ItemChange]:
    """Twenty changes of one version, in order: new items and one that is hidden, which comes first."""
    hidden = ItemChange(item_id("comedy", 5), version, False, None)
    added = [ItemChange(f"{name}-{n:02}", version, True, {"genres": ["horror"], "text": "x" * 100}) for n in range(20)]
    return [hidden, *added]


class ChangedCatalogue:
    """Reads a delta as the API does, in parts of at most so many changes."""

    def __init__(self, version: int, changes: list[ItemChange], part: int) -> None:
        self.version, self.changes, self.part = version, changes, part
        self.asked: list[CataloguePlace] = []

    async def load_delta(self, since: CataloguePlace) -> CatalogueDelta:
        self.asked.append(since)
        later = [each for each in self.changes if place(each).order > since.order]
        part = later[: self.part]
        if len(part) == len(later):
            return CatalogueDelta(since.version, self.version, part, since.item_id)
        return CatalogueDelta(since.version, part[-1].version, part, since.item_id, part[-1].item_id)


def place(change: ItemChange) -> CataloguePlace:
    return CataloguePlace(change.version, change.item_id)


@asynccontextmanager
async def served(predictor: Predictor, max_body_bytes: int = MAX_BODY) -> AsyncIterator[ServingClient]:
    async with served_to(1, predictor, max_body_bytes) as (client,):
        yield client


@asynccontextmanager
async def served_to(
    clients: int, predictor: Predictor, max_body_bytes: int = MAX_BODY
) -> AsyncIterator[list[ServingClient]]:
    """One model server, and as many processes of the API."""
    application = BatchApplication(max_body_bytes)
    watch = ReleaseWatch(lambda: StoreListing({TENANT: ["one"]}), lambda tenant, release: predictor, 60)
    watch.refresh()
    application.open(watch, SETTINGS.authorization)
    async with running(application) as url:
        made = [ServingClient(SETTINGS.model_copy(update={"url": url})) for _ in range(clients)]
        try:
            yield made
        finally:
            for client in made:
                await client.close()


def test_a_delta_larger_than_a_message_arrives_in_parts_and_counts_once_it_is_whole(predictor: Predictor) -> None:
    changed = ChangedCatalogue(12, large(11, "new"), part=5)
    assert len(msgspec.msgpack.encode(changed.changes)) > MAX_BODY

    async def scenario() -> None:
        async with served(predictor) as client:
            answer = await client.ask(TENANT, 12, QUERY, changed.load_delta)
            items = {item.item_id for item in answer.items}
            assert answer.catalogue_version == predictor.catalogue.version == 12
            assert {f"new-{number:02}" for number in range(20)} <= items
            assert item_id("comedy", 5) not in items
            assert len(changed.asked) == 5  # 21 changes
            await client.ask(TENANT, 12, QUERY, changed.load_delta)
            assert len(changed.asked) == 5

    asyncio.run(scenario())


def test_the_whole_delta_in_one_message_would_be_refused(predictor: Predictor) -> None:
    changed = ChangedCatalogue(12, large(11, "new"), part=100)

    async def scenario() -> None:
        async with served(predictor) as client:
            with pytest.raises(ServingUnavailable, match="413"):
                await client.ask(TENANT, 12, QUERY, changed.load_delta)

    asyncio.run(scenario())


def test_a_delta_that_broke_off_is_continued_and_the_version_did_not_rise_meanwhile(predictor: Predictor) -> None:
    changed = ChangedCatalogue(12, large(11, "new"), part=5)

    async def breaking_off(since: CataloguePlace) -> CatalogueDelta:
        if len(changed.asked) == 2:
            raise ConnectionError("the database is away")
        return await changed.load_delta(since)

    async def scenario() -> None:
        async with served(predictor) as client:
            with pytest.raises(ConnectionError):
                await client.ask(TENANT, 12, QUERY, breaking_off)
            assert predictor.catalogue.version == CATALOGUE_VERSION
            older = await client.ask(TENANT, CATALOGUE_VERSION, QUERY, changed.load_delta)
            assert older.catalogue_version == CATALOGUE_VERSION
            answer = await client.ask(TENANT, 12, QUERY, changed.load_delta)
            assert answer.catalogue_version == 12
            assert changed.asked[2] == place(changed.changes[9])  # not from the beginning

    asyncio.run(scenario())


def test_two_processes_that_send_the_same_delta_do_not_disturb_each_other(predictor: Predictor) -> None:
    changes = large(11, "new")
    small, larger = ChangedCatalogue(12, changes, part=3), ChangedCatalogue(12, changes, part=5)

    async def scenario() -> None:
        async with served_to(2, predictor) as (one, other):
            answers = await asyncio.gather(
                one.ask(TENANT, 12, QUERY, small.load_delta), other.ask(TENANT, 12, QUERY, larger.load_delta)
            )
            assert answers[0].catalogue_version == answers[1].catalogue_version == 12
            assert answers[0].items == answers[1].items

    asyncio.run(scenario())


def part_of(changes: list[ItemChange], start: CataloguePlace, stop: int | None, version: int) -> CatalogueDelta:
    end = CataloguePlace(version) if stop is None else place(changes[stop - 1])
    inside = [each for each in changes[:stop] if place(each).order > start.order]
    return CatalogueDelta(start.version, end.version, inside, start.item_id, end.item_id)


def shown(catalogue: Catalogue) -> set[str]:
    return {item for item, visible in zip(catalogue.ids, catalogue.visible, strict=True) if visible}


def test_an_older_part_that_comes_late_does_not_bring_an_older_state_back(predictor: Predictor) -> None:
    """One process read an item before it was hidden, and sends its part after the part that hides it."""
    start = CataloguePlace(CATALOGUE_VERSION)
    before = [ItemChange("a", 11, True, {"n": 1}), ItemChange("x", 12, True, {"n": 1})]
    after = [ItemChange("x", 12, True, {"n": 1}), ItemChange("a", 13, False, {"n": 2})]
    base = predictor.catalogue
    hidden = base.overlaid(part_of(after, start, 2, 14))
    assert hidden.version == CATALOGUE_VERSION
    late = hidden.overlaid(part_of(before, start, 1, 12)).overlaid(part_of(before, start, None, 12))
    assert "a" not in shown(late)
    whole = late.overlaid(part_of(after, late.place, None, 14))
    assert whole.version == 14
    assert {"a", "x"} & shown(whole) == {"x"}


def test_parts_of_every_size_equal_the_whole(predictor: Predictor) -> None:
    changes = sorted([*large(11, "new"), *large(13, "newer")[1:]], key=lambda each: place(each).order)
    base = predictor.catalogue
    whole = base.overlaid(part_of(changes, base.place, None, 14))
    for size in (1, 7, len(changes)):
        laid = base
        for stop in range(size, len(changes), size):
            laid = laid.overlaid(part_of(changes, laid.place, stop, 14))
            assert laid.version == base.version
        laid = laid.overlaid(part_of(changes, laid.place, None, 14))
        assert (laid.version, laid.ids, laid.metadata, shown(laid)) == (14, whole.ids, whole.metadata, shown(whole))
        assert laid.parts_end is None


def test_a_part_after_a_gap_is_refused(predictor: Predictor) -> None:
    changes = large(11, "new")
    with pytest.raises(ValueError, match="the delta starts at version 11"):
        predictor.catalogue.overlaid(part_of(changes, place(changes[3]), 6, 12))


def test_a_server_of_version_1_gets_the_parts_in_one_message(predictor: Predictor) -> None:
    changed = ChangedCatalogue(12, large(11, "new"), part=5)

    async def scenario() -> None:
        async with served(predictor, 100_000) as client:
            client._transport._codec = VERSION_1  # as a 415 without a version teaches it
            answer = await client.ask(TENANT, 12, QUERY, changed.load_delta)
            assert answer.catalogue_version == 12
            assert {f"new-{number:02}" for number in range(20)} <= {item.item_id for item in answer.items}
            assert len(changed.asked) == 5

    asyncio.run(scenario())


def test_version_1_never_carries_a_part_as_if_it_were_the_whole() -> None:
    part = part_of(large(11, "new"), CataloguePlace(CATALOGUE_VERSION), 6, 12)
    with pytest.raises(ServingUnavailable, match="no parts"):
        VERSION_1.encode_request(BatchRequest(TENANT, 11, [], part))
