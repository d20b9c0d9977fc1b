"""Histories in messages: the bytes on the wire are those of a plain array of events, whoever made them."""

from pathlib import Path

import msgspec
import pytest

from serving.contracts.histories import pack_history, pack_ids, read_history, with_events
from serving.contracts.messages import (
    EMPTY_ARRAY,
    BatchRequest,
    CatalogueDelta,
    HistoryEvent,
    ItemChange,
    RecommendQuery,
)
from serving.contracts.protocol import SPOKEN
from serving.contracts.version_1 import VERSION_1
from serving.predictor import Predictor
from serving.queries import read_histories
from tests.fixtures.releases import CATALOGUE_VERSION, TENANT, item_id, likes

COMEDIES = [item_id("comedy", number) for number in range(1, 5)]


def events(count: int, first: int = 0) -> list[HistoryEvent]:
    return [HistoryEvent(f"item-{n}", "click", 0.5, 1_700_000_000_000_000 + n) for n in range(first, first + count)]


@pytest.fixture(scope="module")
def predictor(small_release: Path) -> Predictor:
    return Predictor.load(small_release, max_events=3)


@pytest.mark.parametrize("earlier", [0, 1, 14, 15, 16, 200, 70_000])
def test_later_events_follow_those_of_a_history_of_any_length(earlier: int) -> None:
    history = bytes(pack_history(events(earlier)))
    assert read_history(with_events(history, events(3, earlier))) == events(earlier + 3)
    assert read_history(with_events(history, [])) == events(earlier)


@pytest.mark.parametrize("other", [b"", b"\xc0", b"\x80", msgspec.msgpack.encode("text")])
def test_what_is_no_array_takes_no_events(other: bytes) -> None:
    with pytest.raises(ValueError, match="MessagePack array"):
        with_events(other, events(1))


def test_version_1_of_the_protocol_gets_the_seen_items_among_the_excluded_ones() -> None:
    query = RecommendQuery("hybrid", 5, pack_history(events(20)), ["a"], seen=pack_ids(["b", "c"]))
    (read,) = VERSION_1.decode_request(VERSION_1.encode_request(BatchRequest(TENANT, 1, [query]))).queries
    assert read == msgspec.structs.replace(query, exclude=["a", "b", "c"], seen=EMPTY_ARRAY)


@pytest.mark.parametrize("version", SPOKEN)
def test_a_history_travels_with_metadata_that_messagepack_cannot_carry(version: int) -> None:
    changed = CatalogueDelta(0, 1, [ItemChange("a", 1, True, {"views": 2**80})])
    query = RecommendQuery("hybrid", 5, pack_history(events(3)))
    codec = SPOKEN[version]
    read = codec.decode_request(codec.encode_request(BatchRequest(TENANT, 1, [query], changed)))
    assert isinstance(read.queries[0], RecommendQuery)
    assert read_history(read.queries[0].history) == events(3)


@pytest.mark.fit
def test_seen_items_are_left_out_like_excluded_ones(predictor: Predictor) -> None:
    listed = RecommendQuery("collaborative", 60, exclude=COMEDIES[:2], seen=pack_ids([*COMEDIES[2:], "unheard-of"]))
    response = predictor.answer(BatchRequest(TENANT, CATALOGUE_VERSION, [listed]))
    shown = {item.item_id for item in response.answers[0]}
    assert len(shown) == 60 - len(COMEDIES)
    assert not shown & set(COMEDIES)


@pytest.mark.fit
def test_the_newest_events_count_where_a_history_holds_too_many(predictor: Predictor) -> None:
    query = RecommendQuery("collaborative", 5, likes(*COMEDIES[:3], "unheard-of", COMEDIES[0]))
    (items,) = [read_histories(predictor.catalogue, [query], 3).items.tolist()]
    assert items == [predictor.catalogue.position_of[item] for item in (COMEDIES[2], COMEDIES[0])]


@pytest.mark.fit
def test_a_history_of_another_form_fails_its_own_query_only(predictor: Predictor) -> None:
    good = RecommendQuery("collaborative", 5, likes(*COMEDIES))
    bad = RecommendQuery("collaborative", 5, msgspec.Raw(msgspec.msgpack.encode({"no": "history"})))
    response = predictor.answer(BatchRequest(TENANT, CATALOGUE_VERSION, [bad, good]))
    assert response.answers[0] == "failed"
    assert len(response.answers[1]) == 5
