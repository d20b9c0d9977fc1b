"""One release answers batches, without a server."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.online import Histories
from serving.contracts.filters import parse_filter
from serving.contracts.messages import Algorithm, BatchRequest, Query, RankedItem, RecommendQuery, SimilarQuery
from serving.contracts.releases import BrokenReleaseError
from serving.predictor import Predictor
from tests.fixtures.filters import says
from tests.fixtures.releases import BASE_MODELS, CATALOGUE_VERSION, FAMILIES, GENRES, TENANT, delta, item_id, likes
from training.models.contract import Ensemble

pytestmark = pytest.mark.fit

COMEDIES = [item_id("comedy", number) for number in range(1, 5)]
HORRORS = [item_id("horror", number) for number in range(1, 5)]


def ask(predictor: Predictor, *queries: Query) -> list[Any]:
    response = predictor.answer(BatchRequest(TENANT, CATALOGUE_VERSION, list(queries)))
    assert response.status == "ok"
    return response.answers


def listed(answer: list[RankedItem]) -> list[str]:
    return [item.item_id for item in answer]


@pytest.mark.parametrize("family", FAMILIES)
def test_two_tastes_get_two_lists_with_their_own_evidence(predictor: Predictor, family: Algorithm) -> None:
    comedy, horror = ask(
        predictor, RecommendQuery(family, 5, likes(*COMEDIES)), RecommendQuery(family, 5, likes(*HORRORS))
    )
    assert listed(comedy) != listed(horror)
    for answer, history in ((comedy, COMEDIES), (horror, HORRORS)):
        assert len(answer) == 5
        assert any(item.evidence for item in answer)
        assert all(set(item.evidence) <= set(history) and len(item.evidence) <= 3 for item in answer)
        assert {item.algorithm for item in answer} <= ({family, *BASE_MODELS} if family == "hybrid" else {family})


@pytest.mark.parametrize("family", FAMILIES)
def test_one_more_like_changes_the_order(predictor: Predictor, family: Algorithm) -> None:
    first, second = ask(
        predictor,
        RecommendQuery(family, 60, likes(*COMEDIES)),
        RecommendQuery(family, 60, likes(*COMEDIES, item_id("western", 1))),
    )
    assert listed(first) != listed(second)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_of_a_batch_are_those_of_single_queries(predictor: Predictor, family: Algorithm) -> None:
    queries: list[Query] = [
        RecommendQuery(family, 3, likes(*COMEDIES)),
        SimilarQuery("horror-1", 4),
        RecommendQuery(family, 7, likes(*HORRORS), exclude=["horror-6"], diversity=0.4),
        RecommendQuery(family, 5),
        RecommendQuery(family, 5, likes(*HORRORS), filter=parse_filter({"genres": "western"})),
    ]
    together = ask(predictor, *queries)
    assert together == [ask(predictor, query)[0] for query in queries]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_in_order_within_0_and_1_and_do_not_depend_on_the_rest_of_the_query(
    predictor: Predictor, family: Algorithm
) -> None:
    history = likes(*COMEDIES)
    full, few, filtered, diverse = ask(
        predictor,
        RecommendQuery(family, 60, history),
        RecommendQuery(family, 2, history),
        RecommendQuery(family, 60, history, filter=parse_filter({"genres": "horror"})),
        RecommendQuery(family, 10, history, diversity=0.8),
    )
    score_of = {item.item_id: item.score for item in full}
    for answer in (full, few, filtered, diverse):
        scores = [item.score for item in answer]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert all(score_of[item.item_id] == item.score for item in answer)


def test_diversity_changes_the_set(predictor: Predictor) -> None:
    plain, diverse = ask(
        predictor,
        RecommendQuery("content-based", 6, likes(*COMEDIES)),
        RecommendQuery("content-based", 6, likes(*COMEDIES), diversity=0.9),
    )
    genres = [{item.split("-")[0] for item in listed(answer)} for answer in (plain, diverse)]
    assert len(genres[1]) > len(genres[0])


def test_exclusions_and_filters_hold_and_nothing_is_padded(predictor: Predictor) -> None:
    western = parse_filter({"genres": "western", "year": {"$gte": 1990}})
    (answer,) = ask(
        predictor, RecommendQuery("collaborative", 100, filter=western, exclude=["western-12", "unheard-of"])
    )
    assert sorted(listed(answer)) == sorted(item_id("western", number) for number in range(10, 20) if number != 12)
    (none,) = ask(predictor, RecommendQuery("collaborative", 5, filter=parse_filter({"genres": "opera"})))
    assert none == []


def test_a_user_without_history_gets_the_cold_list_without_evidence(predictor: Predictor) -> None:
    (cold, unknown) = ask(
        predictor,
        RecommendQuery("collaborative", 5),
        RecommendQuery("collaborative", 5, likes("unheard-of", "nor-this")),
    )
    assert len(cold) == 5
    assert cold == unknown
    assert not any(item.evidence for item in cold)


def test_an_item_of_a_hybrid_list_names_the_family_that_carried_more_than_half(predictor: Predictor) -> None:
    history = likes(*COMEDIES)
    (answer,) = ask(predictor, RecommendQuery("hybrid", 60, history))
    catalogue = predictor.catalogue
    positions = np.array([catalogue.position_of[item] for item in COMEDIES], np.int32)
    n = len(COMEDIES)
    histories = Histories(
        positions, np.full(n, 2, np.int8), np.ones(n, np.float32), np.arange(n), np.array([0, n], np.int64)
    )
    component_scores = catalogue.models["hybrid"].component_scores(histories)
    parts = {family: np.maximum(scores[0], 0) for family, scores in component_scores.items()}
    for item in answer:
        shares = {family: part[catalogue.position_of[item.item_id]] for family, part in parts.items()}
        majority = [family for family, share in shares.items() if share > sum(shares.values()) / 2]
        assert [item.algorithm] == (majority or ["hybrid"])
    assert len({item.algorithm for item in answer}) > 1


def test_models_that_a_hybrid_blends_are_shared_with_it(predictor: Predictor) -> None:
    changes = delta(11, ("new", {"genres": ["horror"]}, True))
    for _ in range(2):
        models = predictor.catalogue.models
        ensemble = models["hybrid"]
        assert isinstance(ensemble, Ensemble)
        assert all(ensemble.base_models[family] is models[family] for family in BASE_MODELS)
        predictor.answer(BatchRequest(TENANT, 11, [], changes))
    assert predictor.catalogue.models["hybrid"].n_items == 61


def test_only_the_newest_events_count(small_release: Path) -> None:
    predictor = Predictor.load(small_release, max_events=2)
    long, short = ask(
        predictor,
        RecommendQuery("collaborative", 10, likes(*HORRORS, *COMEDIES[:2])),
        RecommendQuery("collaborative", 10, likes(*COMEDIES[:2])),
    )
    assert listed(long) == listed(short)


def test_similar_items_are_of_the_same_kind_and_an_unknown_item_is_named_so(predictor: Predictor) -> None:
    similar, unknown = ask(predictor, SimilarQuery("horror-3", 5, exclude=["horror-5"]), SimilarQuery("unheard-of", 5))
    assert len(similar) == 5
    assert all(item.startswith("horror") for item in listed(similar))
    assert not {"horror-3", "horror-5"} & set(listed(similar))
    assert unknown == "unknown_item"


def test_an_algorithm_that_the_release_lacks_is_an_error_of_its_query_alone(predictor: Predictor) -> None:
    missing, there = ask(predictor, RecommendQuery("deep-learning", 3), RecommendQuery("collaborative", 3))
    assert missing == "no_model"
    assert len(there) == 3


def test_a_query_that_fails_leaves_the_others_alone(predictor: Predictor) -> None:
    broken = RecommendQuery("collaborative", 3, diversity=float("nan"), filter="no filter")  # type: ignore[arg-type]
    failed, there = ask(predictor, broken, RecommendQuery("collaborative", 3, likes(*COMEDIES)))
    assert failed == "failed"
    assert len(there) == 3


def test_an_unheld_catalogue_version_asks_for_the_delta_and_then_serves_it(predictor: Predictor) -> None:
    query = SimilarQuery("horror-3", 100)
    asked = predictor.answer(BatchRequest(TENANT, 12, [query]))
    assert (asked.status, asked.catalogue_version, asked.answers) == ("delta_needed", CATALOGUE_VERSION, [])
    metadata = {"title": "horror horror3", "genres": ["horror", "film"], "year": 1983}
    changes = delta(12, ("new", metadata, True), ("horror-5", None, False))
    laid = predictor.answer(BatchRequest(TENANT, 12, [query], changes))
    assert (laid.status, laid.catalogue_version) == ("ok", 12)
    assert "new" in listed(laid.answers[0])
    assert "horror-5" not in listed(laid.answers[0])
    older = predictor.answer(BatchRequest(TENANT, 11, [query]))  # a newer version held is fine
    assert older.answers == laid.answers
    newer = predictor.answer(BatchRequest(TENANT, 13, [query]))
    assert (newer.status, newer.catalogue_version) == ("delta_needed", 12)  # only what came after is asked for


def test_a_delta_that_does_not_fit_is_asked_for_again(predictor: Predictor) -> None:
    asked = predictor.answer(BatchRequest(TENANT, 12, [], delta(12, since=CATALOGUE_VERSION + 1)))
    assert (asked.status, asked.catalogue_version) == ("delta_needed", CATALOGUE_VERSION)
    asked = predictor.answer(BatchRequest(TENANT, 12, [], delta(11)))  # too short, yet a step on the way
    assert (asked.status, asked.catalogue_version) == ("delta_needed", 11)


def test_an_item_that_left_is_no_evidence(predictor: Predictor) -> None:
    gone = delta(11, *[(item, None, False) for item in COMEDIES[:3]])
    query = RecommendQuery("collaborative", 60, likes(*COMEDIES))
    (answer,) = predictor.answer(BatchRequest(TENANT, 11, [query], gone)).answers
    assert {source for item in answer for source in item.evidence} == {COMEDIES[3]}


QUERIES = st.builds(
    lambda family, count, history, exclude, genre, diversity: RecommendQuery(
        family, count, likes(*history), exclude, parse_filter({"genres": genre} if genre else {}), diversity
    ),
    st.sampled_from(FAMILIES),
    st.integers(1, 100),
    st.lists(st.sampled_from([*COMEDIES, *HORRORS, "unheard-of"]), max_size=6),
    st.lists(st.sampled_from(COMEDIES + HORRORS), max_size=4),
    st.sampled_from([None, *GENRES]),
    st.floats(0, 1),
)


@given(st.lists(QUERIES, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_list_is_long_enough_distinct_and_admitted(small_release: Path, queries: list[RecommendQuery]) -> None:
    predictor = loaded(small_release)
    for query, answer in zip(queries, ask(predictor, *queries), strict=True):
        items = listed(answer)
        admitted = {
            item
            for item, metadata in zip(predictor.catalogue.ids, predictor.catalogue.metadata, strict=True)
            if query.filter is None or says(query.filter, metadata)
        } - set(query.exclude)
        assert len(items) == min(query.count, len(admitted))
        assert len(set(items)) == len(items)
        assert set(items) <= admitted


_loaded: dict[Path, Predictor] = {}


def loaded(folder: Path) -> Predictor:
    return _loaded.setdefault(folder, Predictor.load(folder, 200))


@pytest.mark.parametrize("damage", ["models/collaborative-1/linear.npz", "items.parquet", "release.json"])
def test_a_damaged_release_is_refused(small_release: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "release"
    shutil.copytree(small_release, copy)
    (copy / damage).write_bytes((copy / damage).read_bytes()[:-10])
    with pytest.raises(BrokenReleaseError):
        Predictor.load(copy, 200)
    (copy / damage).unlink()
    with pytest.raises(BrokenReleaseError):
        Predictor.load(copy, 200)


def test_a_release_whose_model_gives_no_finite_score_is_refused(small_release: Path, tmp_path: Path) -> None:
    copy = tmp_path / "release"
    shutil.copytree(small_release, copy)
    arrays = copy / "models/collaborative-1/linear.npz"
    size = arrays.stat().st_size
    with np.load(arrays) as held:
        changed = {name: held[name] for name in held.files}
    changed["base"] = np.full_like(changed["base"], np.nan)
    np.savez(arrays, **changed)
    assert arrays.stat().st_size == size
    with pytest.raises(BrokenReleaseError, match="finite"):
        Predictor.load(copy, 200)
