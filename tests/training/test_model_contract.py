"""Promises that every model family keeps. Families are found by themselves, so that a new one is held to them too."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_store.online import Histories
from tests.training.catalogue import GENRES, N_ITEMS, N_USERS, build_dataset, histories, items_of, metadata_of
from training.config import load_config
from training.data.dataset import Dataset
from training.data.splits import leave_one_out_split
from training.evaluation.report import evaluate_model
from training.models.contract import Ensemble, Recommender, RuntimeOptions
from training.models.linear import LinearRecommender
from training.models.lists import NO_ITEM, top_k
from training.models.registry import families, family_class, load_model, save_model

pytestmark = pytest.mark.fit

FAMILIES = families()
READERS = ("content-based", "deep-learning", "hybrid")
"""Families that must read metadata."""
ENSEMBLE_MEMBERS = [name for name in FAMILIES if name != "popularity"]
EXACT = [name for name in FAMILIES if issubclass(family_class(name), LinearRecommender)]
"""Families whose contributions are exact by construction, rather than an attribution that was measured."""
OPTIONS = RuntimeOptions(seed=3, threads=1, max_seconds=120)
SAFE_FILES = {".json", ".npz", ".safetensors", ".arrow", ".parquet"}

WESTERNS, ROMANCES, HORRORS, SPACE = ([int(item) for item in items_of(genre)] for genre in range(len(GENRES)))
FEW = histories(WESTERNS[:5], HORRORS[3:9], [SPACE[2]], [], ROMANCES[:2] + SPACE[:2])


def fit(family: str, dataset: Dataset, base_models: Sequence[str] | None = None) -> Recommender:
    """As the product does it: an ensemble learns from models of the past and then holds those of the whole.

    base_models: families that an ensemble combines; by default all that are no ensemble.
    """
    found = family_class(family)
    if not issubclass(found, Ensemble):
        return found(load_config(family)).fit(dataset, OPTIONS)
    times = dataset.interactions.timestamps
    known_until = int(np.quantile(times, 0.8, method="higher"))
    past = dataset.where(times < known_until)
    chosen = base_models or [name for name in FAMILIES if not issubclass(family_class(name), Ensemble)]
    ensemble = found(load_config(family), {name: base_model(name, past) for name in chosen}, known_until)
    ensemble.fit(dataset, OPTIONS)
    return ensemble.with_refitted({name: base_model(name, dataset) for name in chosen}, dataset)


_base_models: dict[tuple[str, int], Recommender] = {}


def base_model(family: str, dataset: Dataset) -> Recommender:
    """A fitted base model of an ensemble, fitted once per cut of the one data set of this module."""
    key = (family, len(dataset.interactions))
    if key not in _base_models:
        _base_models[key] = fit(family, dataset)
    return _base_models[key]


@cache
def fitted(family: str) -> Recommender:
    if issubclass(family_class(family), Ensemble):
        return fit(family, build_dataset())
    return base_model(family, build_dataset())


@cache
def reader(family: str) -> Recommender:
    """The fitted family; an ensemble over readers alone, since one of all families may keep none of them here."""
    if not issubclass(family_class(family), Ensemble):
        return fitted(family)
    return fit(family, build_dataset(), [name for name in READERS if name != family])


@cache
def reloaded(family: str, folder: Path) -> Recommender:
    model = fitted(family)
    save_model(model, folder)
    return load_model(folder, model.base_models if isinstance(model, Ensemble) else None)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(family: str) -> Recommender:
    return fitted(family)


def without_item(rows: Histories, items: np.ndarray) -> Histories:
    """Each history less every event of one item. items: int [batch]."""
    kept = rows.items != items[rows.rows]
    offsets = np.concatenate(([0], np.cumsum(kept)))[rows.offsets]
    return Histories(rows.items[kept], rows.types[kept], rows.weights[kept], rows.timestamps[kept], offsets)


def test_the_six_families_are_found() -> None:
    assert {"popularity", "item-knn", "collaborative", "content-based", "deep-learning", "hybrid"} <= set(FAMILIES)


def test_scores_are_finite_float32_for_every_item(model: Recommender) -> None:
    scores = model.score(FEW)
    assert scores.shape == (5, N_ITEMS) == (5, model.n_items)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_no_histories_give_no_rows(model: Recommender) -> None:
    assert model.score(histories()).shape == (0, N_ITEMS)


def test_candidates_are_columns_of_all_scores(model: Recommender) -> None:
    candidates = np.array([7, 3, 100], dtype=np.int32)
    np.testing.assert_allclose(model.score(FEW, candidates), model.score(FEW)[:, candidates], rtol=1e-5, atol=1e-6)


def test_component_scores_add_up_to_the_scores(model: Recommender) -> None:
    components = model.component_scores(FEW)
    np.testing.assert_allclose(sum(components.values()), model.score(FEW), rtol=1e-5, atol=1e-5)
    assert set(components) <= set(FAMILIES)


def test_an_empty_history_gets_a_ranking_and_no_evidence(model: Recommender) -> None:
    empty = histories([])
    ranked = model.recommend(empty, 10)
    assert (ranked.items >= 0).all()
    assert len(np.unique(model.score(empty))) > 1, "the cold path must prefer something"
    assert (model.evidence(empty, ranked.items) == NO_ITEM).all()


def test_lists_are_in_order_of_score_then_position(model: Recommender) -> None:
    ranked = model.recommend(FEW, 20)
    for row, scores in enumerate(model.score(FEW)):
        expected = np.lexsort((np.arange(N_ITEMS), -scores))[:20]
        assert ranked.items[row].tolist() == expected.tolist()
        np.testing.assert_array_equal(ranked.scores[row], scores[expected])


def test_excluded_and_disallowed_items_never_appear(model: Recommender) -> None:
    top = model.recommend(FEW, 10).items
    exclude = np.zeros((len(FEW), N_ITEMS), dtype=bool)
    exclude[np.arange(len(FEW)), top[:, 0]] = True
    allowed = np.ones(N_ITEMS, dtype=bool)
    allowed[top[0, 1]] = False
    ranked = model.recommend(FEW, N_ITEMS, exclude, allowed).items
    for row in range(len(FEW)):
        assert top[row, 0] not in ranked[row]
        assert top[0, 1] not in ranked[row]


def test_a_list_longer_than_the_catalogue_is_the_catalogue(model: Recommender) -> None:
    ranked = model.recommend(FEW, N_ITEMS + 50)
    assert ranked.items.shape == (5, N_ITEMS)
    assert sorted(ranked.items[0]) == list(range(N_ITEMS))


def test_what_is_left_when_little_is_allowed_is_padded(model: Recommender) -> None:
    allowed = np.zeros(N_ITEMS, dtype=bool)
    allowed[[4, 9]] = True
    ranked = model.recommend(FEW, 5, allowed=allowed)
    assert sorted(ranked.items[0, :2]) == [4, 9]
    assert (ranked.items[:, 2:] == NO_ITEM).all()
    assert np.isneginf(ranked.scores[:, 2:]).all()


def test_item_vectors_are_unit_or_zero(model: Recommender) -> None:
    vectors = model.item_vectors()
    assert vectors.shape[0] == N_ITEMS
    assert vectors.dtype == np.float32
    norms = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(norms - 1) < 1e-3) | (norms == 0))


def test_similar_leaves_the_item_itself_out(model: Recommender) -> None:
    items = np.array([0, 57, 119], dtype=np.int32)
    ranked = model.similar(items, 8)
    assert ranked.items.shape == (3, 8)
    for item, row in zip(items, ranked.items, strict=True):
        assert item not in row
        assert len(set(row.tolist())) == 8


@pytest.mark.parametrize("family", ENSEMBLE_MEMBERS)
def test_similar_items_are_mostly_of_one_genre(family: str) -> None:
    ranked = fitted(family).similar(np.array([WESTERNS[0], ROMANCES[0]], dtype=np.int32), 5)
    assert np.isin(ranked.items[0], WESTERNS).mean() >= 0.6
    assert np.isin(ranked.items[1], ROMANCES).mean() >= 0.6


def test_a_saved_model_scores_and_explains_as_before(family: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / f"saved-{family}"
    model, loaded = fitted(family), reloaded(family, folder)
    assert loaded.family == family
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded.score(FEW), model.score(FEW))
    np.testing.assert_array_equal(loaded.item_vectors(), model.item_vectors())
    lists = model.recommend(FEW, 5).items
    np.testing.assert_array_equal(loaded.evidence(FEW, lists), model.evidence(FEW, lists))
    assert json.loads((folder / "model.json").read_text())["family"] == family


def test_a_saved_model_is_laid_over_as_the_original_is(family: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = fitted(family)
    loaded = reloaded(family, tmp_path_factory.getbasetemp() / f"saved-{family}")
    change = (np.array([N_ITEMS], dtype=np.int32), [metadata_of(2, 50)])
    np.testing.assert_array_equal(loaded.with_items(*change).score(FEW), model.with_items(*change).score(FEW))


def test_files_hold_neither_pickles_nor_users(family: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / f"saved-{family}"
    reloaded(family, folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= SAFE_FILES
    for path in files:
        assert not path.read_bytes().startswith(b"\x80"), f"{path.name} starts as a pickle does"
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                for name in arrays.files:
                    assert N_USERS not in arrays[name].shape, f"{name} of {path.name} looks like one row per user"


def test_a_history_scores_the_same_whoever_asks_beside_it(model: Recommender) -> None:
    alone = np.vstack([model.score(FEW.take(np.array([row]))) for row in range(len(FEW))])
    np.testing.assert_allclose(model.score(FEW), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ENSEMBLE_MEMBERS)
def test_what_a_stranger_likes_changes_the_ranking(family: str) -> None:
    assert _order(family, WESTERNS[:5]) != _order(family, HORRORS[:5])
    top = _order(family, WESTERNS[:5])[:10]
    more = next(item for item in SPACE if item not in top)
    assert _order(family, [*WESTERNS[:5], more]) != _order(family, WESTERNS[:5])


def _order(family: str, liked: list[int]) -> list[int]:
    return [int(item) for item in fitted(family).recommend(histories(liked), N_ITEMS).items[0]]


def test_positions_outside_the_catalogue_are_refused(model: Recommender) -> None:
    with pytest.raises(IndexError):
        model.score(histories([N_ITEMS]))


def test_new_items_are_scored_and_the_original_stays(model: Recommender) -> None:
    before = model.score(FEW).copy()
    wider = model.with_items(np.array([N_ITEMS, N_ITEMS + 1], np.int32), [metadata_of(0, 90), {}])
    scores = wider.score(FEW)
    assert (wider.n_items, model.n_items) == (N_ITEMS + 2, N_ITEMS)
    assert scores.shape == (5, N_ITEMS + 2)
    assert np.isfinite(scores).all()
    assert wider.item_vectors().shape[0] == N_ITEMS + 2
    np.testing.assert_allclose(scores[:, :N_ITEMS], before, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.score(FEW), before)
    assert len(wider.recommend(histories([N_ITEMS, 3]), 5).items[0]) == 5, "a new item may be in a history"


def test_items_are_added_one_delta_after_another(model: Recommender) -> None:
    both = [metadata_of(1, 80), metadata_of(2, 81)]
    at_once = model.with_items(np.array([N_ITEMS, N_ITEMS + 1], np.int32), both)
    stepwise = model.with_items(np.array([N_ITEMS], np.int32), both[:1])
    stepwise = stepwise.with_items(np.array([N_ITEMS + 1], np.int32), both[1:])
    np.testing.assert_allclose(stepwise.score(FEW), at_once.score(FEW), rtol=1e-5, atol=1e-5)


def test_an_edit_of_nothing_changes_nothing(model: Recommender) -> None:
    same = model.with_items(np.array([5], np.int32), [build_dataset().items.metadata[5]])
    np.testing.assert_allclose(same.score(FEW), model.score(FEW), rtol=1e-4, atol=1e-4)
    assert model.with_items(np.empty(0, np.int32), []).n_items == N_ITEMS


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in READERS])
def test_families_blind_to_content_give_new_items_their_lowest_cold_score(family: str) -> None:
    wider = fitted(family).with_items(np.array([N_ITEMS], np.int32), [metadata_of(0, 90)])
    cold = wider.score(histories([]))[0]
    assert cold[N_ITEMS] == cold.min()


@pytest.mark.parametrize("family", READERS)
def test_readers_of_content_rank_a_new_item_by_its_genre(family: str) -> None:
    western, romance = metadata_of(0, 90), metadata_of(1, 90)
    wider = reader(family).with_items(np.array([N_ITEMS, N_ITEMS + 1], np.int32), [western, romance])
    for_western, for_romance = wider.score(histories(WESTERNS[:5], ROMANCES[:5]))
    assert for_western[N_ITEMS] > for_western[N_ITEMS + 1]
    assert for_romance[N_ITEMS + 1] > for_romance[N_ITEMS]
    assert for_western[N_ITEMS] > np.median(for_western)


@pytest.mark.parametrize("family", READERS)
def test_readers_of_content_follow_an_edit(family: str) -> None:
    rare = SPACE[-1]
    edited = reader(family).with_items(np.array([rare], np.int32), [metadata_of(0, 90)])
    liked = histories(WESTERNS[:5])
    assert edited.score(liked)[0, rare] > reader(family).score(liked)[0, rare]


def test_contributions_name_items_of_the_history_largest_first(model: Recommender) -> None:
    items = model.recommend(FEW, 1).items[:, 0]
    for row, found in enumerate(model.explain(FEW, items)):
        history = FEW.items[FEW.offsets[row] : FEW.offsets[row + 1]]
        assert set(found.items) <= set(history)
        assert len(set(found.items)) == len(found.items) == len(found.values)
        assert np.isfinite(found.values).all()
        assert (np.diff(found.values) <= 0).all()


def test_lists_are_explained_as_their_items_are(model: Recommender) -> None:
    items = model.recommend(FEW, 4).items
    items[1, 2] = NO_ITEM
    for row, found in enumerate(model.explain_lists(FEW, items)):
        for column in range(4):
            if items[row, column] == NO_ITEM:
                continue
            one = model.explain(FEW.take(np.array([row])), items[row, [column]])[0]
            listed = dict(zip(found.items.tolist(), found.values[:, column].tolist(), strict=True))
            for source, value in zip(one.items.tolist(), one.values.tolist(), strict=True):
                assert listed.get(source, 0.0) == pytest.approx(value, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("family", ENSEMBLE_MEMBERS)
def test_evidence_is_true(family: str) -> None:
    """Without the item that weighs most, the score is lower: 95 in 100 of those that are given evidence at all."""
    model = fitted(family)
    users = build_dataset().histories().take(np.arange(40))
    lists = model.recommend(users, 3).items
    named = model.evidence(users, lists, top=1)[:, :, 0]
    rows, columns = np.nonzero(named != NO_ITEM)
    assert len(rows) >= 40, "evidence for a third of the items at least"
    queries, items = users.take(rows), lists[rows, columns]
    less = without_item(queries, named[rows, columns])
    places = np.arange(len(rows))
    lowered = model.score(less)[places, items] < model.score(queries)[places, items]
    assert lowered.mean() >= 0.95


ratings = st.tuples(st.integers(0, N_ITEMS - 1), st.integers(0, 3), st.floats(0.25, 1.0, width=16))


@pytest.mark.parametrize("family", EXACT)
@given(events=st.lists(ratings, min_size=1, max_size=25), item=st.integers(0, N_ITEMS - 1))
@settings(max_examples=60, deadline=None)
def test_exact_contributions_are_what_the_score_loses(family: str, events: list[tuple], item: int) -> None:
    model = fitted(family)
    history = replace(
        histories([event[0] for event in events]),
        types=np.array([event[1] for event in events], np.int8),
        weights=np.array([event[2] for event in events], np.float32),
    )
    target = np.array([item], np.int32)
    found = model.explain(history, target)[0]
    score = float(model.score(history)[0, item])
    for source, value in zip(found.items[[0, -1]], found.values[[0, -1]], strict=True):
        lost = float(score - model.score(without_item(history, np.array([source])))[0, item])
        assert lost == pytest.approx(float(value), rel=1e-3, abs=1e-5 * max(1.0, abs(score)))


def test_a_fit_repeats_itself_under_its_seed(family: str) -> None:
    repeated = fit(family, build_dataset())
    np.testing.assert_array_equal(repeated.score(FEW), fitted(family).score(FEW))


FLOORS = {"popularity": 1.5}
"""Least NDCG@10 in multiples of chance; a family that reads histories sees through the genres."""


def test_lists_are_better_than_chance(family: str) -> None:
    split = leave_one_out_split(build_dataset())
    model = base_model(family, split.train)
    report = evaluate_model(model, split, n_resamples=2)
    reached, chance = report.metric("ndcg@10"), report.metric("ndcg@10", model="random")
    assert reached is not None and chance is not None
    assert reached > FLOORS.get(family, 4.0) * chance


def test_unknown_settings_are_refused(family: str) -> None:
    config = family_class(family).Config
    with pytest.raises(ValidationError, match="no_such_setting"):
        config.model_validate({**config().model_dump(), "no_such_setting": 1})


def test_a_configuration_cannot_be_changed(family: str) -> None:
    config = load_config(family)
    with pytest.raises(ValidationError):
        setattr(config, next(iter(type(config).model_fields)), 1)


def test_nothing_to_learn_from_is_said(family: str) -> None:
    dataset = build_dataset()
    nothing = dataset.where(np.zeros(len(dataset.interactions), dtype=bool))
    found = family_class(family)
    with pytest.raises(ValueError, match=r"\w+"):
        found(load_config(family)).fit(nothing, OPTIONS)


SCORED = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=12), min_size=1, max_size=4)


@given(SCORED, st.integers(1, 12))
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_scoring_gives_what_the_plain_methods_give(name: str, lists: list[list[int]], k: int) -> None:
    model, rows = fitted(name), histories(*lists)
    plain, scoring = model.score(rows), model.scoring(rows)
    scale = float(plain.std()) or 1.0
    scoring.complete(np.full(len(rows), k))
    ranked = top_k(scoring.scores.copy(), k)
    expected = np.take_along_axis(plain, ranked.items, axis=1)
    np.testing.assert_allclose(ranked.scores, expected, atol=1e-4 * scale)
    np.testing.assert_allclose(ranked.scores, top_k(plain, k).scores, atol=1e-4 * scale)
    components = scoring.component_scores(ranked.items)
    for family, whole in model.component_scores(rows).items():
        listed = np.take_along_axis(whole, ranked.items, axis=1)
        np.testing.assert_allclose(components[family], listed, atol=1e-4 * scale)
    by_scoring, by_model = scoring.contributions(ranked.items), model.explain_lists(rows, ranked.items)
    for one, other in zip(by_scoring, by_model, strict=True):
        assert one.items.tolist() == other.items.tolist()
        near = np.isclose(one.values, other.values, atol=1e-3 * scale)
        at_threshold = (one.values == 0) != (other.values == 0)  # one that is dropped, of a sequential model
        assert (near | at_threshold).all()


def test_an_ensemble_may_leave_products_out_that_enter_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.models.linear.MIN_CELLS", 1)
    model = fit("hybrid", build_dataset(), ["collaborative", "content-based"])
    for weight in (1e-6, 0.05, 1.0):
        weights = {"collaborative": 1.0, "content-based": weight}
        model.learned = model.learned.model_copy(update={"weights": weights})
        plain, scoring = model.score(FEW), model.scoring(FEW)
        scoring.complete(np.full(len(FEW), 5))
        assert top_k(scoring.scores, 5).items.tolist() == top_k(plain, 5).items.tolist()
