"""Kept answers: equal to computed ones, out of date after any change, bounded, and unreadable without the history."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import answer_cache
from serving.answer_cache import KEPT_SECONDS, AnswerCache, AnswerName
from serving.contracts.codec import items_of, n_items_of
from serving.contracts.filters import parse_filter
from serving.contracts.messages import BatchRequest, CataloguePlace, Query, RankedItem, RecommendQuery, SimilarQuery
from serving.contracts.protocol import SPOKEN
from serving.overlay import Catalogue
from serving.predictor import Answer, Predictor
from serving.turns import Turns
from tests.fixtures.releases import CATALOGUE_VERSION, FAMILIES, TENANT, delta, item_id, likes

PLACE = CataloguePlace(7)
ANSWER = [RankedItem("film-1", 0.5, "hybrid", "because", ["film-2", "film-3"])]
ASKED = RecommendQuery("hybrid", 10, likes("film-2", "film-3"), trace_id="first")
ROOM = 1024 * 1024


@pytest.fixture
def cache() -> AnswerCache:
    return AnswerCache(ROOM)


def kept(cache: AnswerCache, name: AnswerName) -> list[RankedItem] | None:
    answer = cache.get(name)
    if answer is None:
        return None
    items = items_of(answer)
    assert n_items_of(answer) == len(items)
    return items


def test_an_answer_is_found_again_whatever_the_trace_id(cache: AnswerCache) -> None:
    cache.put(cache.name("r", PLACE, ASKED), ANSWER)
    assert kept(cache, cache.name("r", PLACE, msgspec.structs.replace(ASKED, trace_id="second"))) == ANSWER


@pytest.mark.parametrize(
    "query",
    [
        msgspec.structs.replace(ASKED, **{name: value})
        for name, value in {
            "algorithm": "collaborative",
            "count": 9,
            "history": likes("film-2"),
            "exclude": ["film-9"],
            "filter": parse_filter({"genre": "comedy"}),
            "diversity": 0.5,
            "seen": likes("film-4"),
        }.items()
    ],
    ids=lambda query: "-".join(
        name for name in query.__struct_fields__ if getattr(query, name) != getattr(ASKED, name)
    ),
)
def test_another_query_has_another_answer(cache: AnswerCache, query: RecommendQuery) -> None:
    cache.put(cache.name("r", PLACE, ASKED), ANSWER)
    assert cache.get(cache.name("r", PLACE, query)) is None


def test_every_field_of_a_query_but_its_trace_id_names_the_answer() -> None:
    """A new field belongs into the test above."""
    assert set(RecommendQuery.__struct_fields__) == {
        *("algorithm", "count", "history", "exclude", "filter", "diversity", "seen"),
        "trace_id",
    }


def test_another_release_or_place_in_the_catalogue_has_another_answer(cache: AnswerCache) -> None:
    cache.put(cache.name("r", PLACE, ASKED), ANSWER)
    assert cache.get(cache.name("s", PLACE, ASKED)) is None
    assert cache.get(cache.name("r", CataloguePlace(8), ASKED)) is None
    assert cache.get(cache.name("r", CataloguePlace(7, "film-1"), ASKED)) is None


def test_what_is_kept_shows_nothing_of_a_user(cache: AnswerCache) -> None:
    """After an erasure nobody has the history, and without it an answer cannot be read."""
    cache.put(cache.name("r", PLACE, ASKED), ANSWER)
    held = repr(vars(cache)).encode() + b"".join(entry.encrypted for entry in cache._entries.values())
    for secret in ("film-1", "film-2", "film-3", "because"):
        assert secret.encode() not in held


def test_an_answer_goes_after_its_time() -> None:
    now = 1.0
    cache = AnswerCache(ROOM, clock=lambda: now)
    name = cache.name("r", PLACE, ASKED)
    cache.put(name, ANSWER)
    now += KEPT_SECONDS / 2
    cache.put(name, ANSWER)  # which makes it no younger
    assert kept(cache, name) == ANSWER
    now += KEPT_SECONDS / 2
    assert cache.get(name) is None
    assert cache.size == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30)), max_size=60))
def test_the_newest_answers_stay_within_the_bound(puts: list[tuple[int, int]]) -> None:
    """Each put: a query by number, and how many items its answer has."""
    bound = 5_000
    cache = AnswerCache(bound)
    for number, n_items in puts:
        name = cache.name("r", PLACE, SimilarQuery(str(number), 10))
        answer = [RankedItem(str(item), 0.5, "hybrid", "", []) for item in range(n_items)]
        new = cache.get(name) is None
        cache.put(name, answer)
        assert cache.size <= bound
        if new:
            assert kept(cache, name) == answer
    assert cache.size == sum(answer_cache._size(entry) for entry in cache._entries.values())


def test_an_answer_larger_than_the_cache_is_not_kept() -> None:
    cache = AnswerCache(100)
    cache.put(cache.name("r", PLACE, ASKED), ANSWER)
    assert cache.size == 0


class CountingPredictor(Predictor):
    """A real predictor that counts the queries it computes."""

    computed = 0

    def answer_queries(self, catalogue: Catalogue, queries: Sequence[Query]) -> list[Answer]:
        self.computed += len(queries)
        return super().answer_queries(catalogue, queries)


@pytest.fixture
def counting(small_release: Path) -> CountingPredictor:
    predictor = CountingPredictor.load(small_release, max_events=200)
    assert isinstance(predictor, CountingPredictor)
    return predictor


def ask(turns: Turns, predictor: Predictor, *queries: Query) -> list[Answer]:
    response = asyncio.run(turns.answer(predictor, BatchRequest(TENANT, CATALOGUE_VERSION, list(queries))))
    assert response.status == "ok"
    sent = [codec.decode_response(codec.encode_response(response)).answers for codec in SPOKEN.values()]
    assert all(each == sent[0] for each in sent)  # kept answers too are the same in every version of the protocol
    return sent[0]


@pytest.mark.fit
def test_kept_answers_equal_computed_ones_for_every_family(counting: CountingPredictor) -> None:
    turns = Turns(AnswerCache(ROOM))
    histories = [likes(item_id("comedy", 1)), likes(item_id("horror", 2), item_id("horror", 3))]
    queries: list[Query] = [RecommendQuery(family, 10, history) for family in FAMILIES for history in histories]
    queries.append(SimilarQuery(item_id("comedy", 1), 5))
    first = ask(turns, counting, *queries)
    computed = counting.computed
    assert ask(turns, counting, *reversed(queries)) == first[::-1]
    assert counting.computed == computed
    for query, answer in zip(queries, first, strict=True):
        assert counting.answer_queries(counting.catalogue, [query]) == [answer]


@pytest.mark.fit
def test_only_what_is_missing_is_computed_and_errors_are_not_kept(counting: CountingPredictor) -> None:
    turns = Turns(AnswerCache(ROOM))
    known, new = (RecommendQuery("collaborative", 3, likes(item_id(genre, 1))) for genre in ("comedy", "horror"))
    faulty = SimilarQuery("no such item", 3)
    ask(turns, counting, known)
    for _ in range(2):
        counting.computed = 0
        answers = ask(turns, counting, faulty, known, new)
        assert answers[0] == "unknown_item"
        assert answers[1:] == counting.answer_queries(counting.catalogue, [known, new])
        counting.computed -= 2
    assert counting.computed == 1


@pytest.mark.fit
def test_a_hidden_item_is_gone_from_the_next_answer(counting: CountingPredictor) -> None:
    turns = Turns(AnswerCache(ROOM))
    query = RecommendQuery("collaborative", 5, likes(item_id("comedy", 1)))
    (before,) = ask(turns, counting, query)
    hidden = before[0].item_id
    change = delta(CATALOGUE_VERSION + 1, (hidden, None, False))
    request = BatchRequest(TENANT, change.version, [query], change)
    (after,) = asyncio.run(turns.answer(counting, request)).answers
    assert hidden not in {item.item_id for item in after}


@pytest.mark.fit
def test_another_load_of_a_release_answers_for_itself(counting: CountingPredictor, small_release: Path) -> None:
    turns = Turns(AnswerCache(ROOM))
    query = RecommendQuery("collaborative", 5, likes(item_id("comedy", 1)))
    ask(turns, counting, query)
    other = CountingPredictor.load(small_release, max_events=200)
    assert isinstance(other, CountingPredictor)
    other.computed = 0
    ask(turns, other, query)
    assert other.computed == 1
