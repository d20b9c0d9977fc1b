"""The ranker: what it learns, when it gives up, and that its contributions are exact over linear base models."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.online import Histories
from tests.training.catalogue import N_ITEMS, build_dataset, histories, items_of, metadata_of
from training.data.dataset import Dataset, Interactions, ItemTable
from training.data.splits import Holdout, leave_one_out_split
from training.evaluation.report import evaluate_model
from training.models.cold_start.boost import ColdItemBoost, ColdStartModel, find_boost, largest_boost, resized_boost
from training.models.collaborative.model import Collaborative
from training.models.content_based.model import ContentBased
from training.models.contract import Recommender, RuntimeOptions
from training.models.hybrid.config import HybridConfig
from training.models.hybrid.learning import LearnedRanker, RankerConfig, learn_ranker
from training.models.hybrid.model import Hybrid
from training.models.hybrid.queries import build_queries
from training.models.hybrid.ranker import Candidates, aggregate_diversity, fit_weights, ndcg_of_queries
from training.models.hybrid.selection import HeldOut, RankerOption, choose_components
from training.models.lists import NO_ITEM
from training.models.popularity import Popularity
from training.models.profiles import Profiles

OPTIONS = RuntimeOptions(threads=1)
RANKER = RankerConfig(
    candidates=20, popularity_weights=(0.0, 0.5), diversity_powers=(0.0,), tolerance=0.0, folds=4, prior_users=0
)


def until(dataset: Dataset, share: float = 0.8) -> int:
    return int(np.quantile(dataset.interactions.timestamps, share, method="higher"))


def fitted_base_models(dataset: Dataset, *families: type[Recommender]) -> dict[str, Recommender]:
    return {family.family: family().fit(dataset, OPTIONS) for family in families}


@pytest.fixture(scope="module")
def hybrid() -> Hybrid:
    """Fitted, then given weights that leave no base model out."""
    dataset = build_dataset()
    moment = until(dataset)
    past = dataset.where(dataset.interactions.timestamps < moment)
    ensemble = Hybrid(None, fitted_base_models(past, Collaborative, ContentBased), moment).fit(dataset, OPTIONS)
    shares = {"collaborative": 0.6, "content-based": 0.4}
    chosen = {"weights": shares, "popularity_weight": 0.3, "kept_base_model": None}
    ensemble.learned = ensemble.learned.model_copy(update=chosen)
    ensemble.explained_by = list(shares)
    return ensemble.with_refitted(fitted_base_models(dataset, Collaborative, ContentBased), dataset)


def candidates(seed: int = 0) -> Candidates:
    """Two features, of which only the first tells chosen from not."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(80, 20, 2)).astype(np.float32)
    chosen = np.zeros((80, 20), bool)
    chosen[np.arange(80), features[:, :, 0].argmax(axis=1)] = True
    valid = np.ones((80, 20), bool)
    items = np.tile(np.arange(20, dtype=np.int32), (80, 1))
    return Candidates(items, features, chosen, valid, np.ones(80, np.int64), np.ones(80))


def test_weight_goes_to_the_feature_that_tells() -> None:
    weights = fit_weights(candidates(), l2=1e-3)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.95


def test_a_misleading_feature_gets_no_weight_rather_than_a_negative_one() -> None:
    turned = candidates()
    turned.features[:, :, 1] = -turned.features[:, :, 0]
    np.testing.assert_allclose(fit_weights(turned, l2=1e-3), [1, 0])


def test_ndcg_of_lists_checked_by_hand() -> None:
    features = np.array([[[3.0], [2.0], [1.0]], [[3.0], [2.0], [9.0]]], np.float32)
    chosen = np.array([[False, True, False], [True, False, False]])
    valid = np.array([[True, True, True], [True, True, False]])
    items = np.array([[4, 5, 6], [6, 7, 0]], np.int32)
    lists = Candidates(items, features, chosen, valid, np.array([2, 1]), np.ones(2))
    figures = ndcg_of_queries(lists, np.ones(1))
    assert aggregate_diversity(lists, np.ones(1)) == 4
    assert figures.tolist() == pytest.approx([1 / np.log2(3) / (1 + 1 / np.log2(3)), 1.0])


def test_queries_ask_for_what_came_after_the_moment_only() -> None:
    events = Interactions(
        users=np.array([0, 0, 0, 0, 1, 2], np.int32),
        items=np.array([5, 6, 5, 7, 8, 9], np.int32),
        types=np.zeros(6, np.int8),
        weights=np.ones(6, np.float32),
        timestamps=np.array([10, 20, 30, 40, 35, 10], np.int64),
    )
    dataset = Dataset(events, ItemTable(np.arange(10).astype(object), [{}] * 10, np.ones(10, bool)), 3)
    queries = build_queries(dataset, 20, 2, 100, mask="all", rng=np.random.default_rng(0))
    assert queries.users.tolist() == [0, 0, 1]
    told = [queries.histories.items[a:b].tolist() for a, b in zip(*_bounds(queries.histories.offsets), strict=True)]
    assert told == [[5], [5, 6], []]
    assert [row.nonzero()[0].tolist() for row in queries.targets.toarray()] == [[6, 7], [7], [8]]
    assert [row.nonzero()[0].tolist() for row in queries.masked.toarray()] == [[5], [5, 6], []]


@pytest.mark.fit
def test_items_chosen_before_are_targets_where_people_choose_them_again() -> None:
    once = Interactions(
        users=np.repeat(np.arange(30, dtype=np.int32), 6),
        items=np.tile(np.arange(6, dtype=np.int32), 30),
        types=np.zeros(180, np.int8),
        weights=np.ones(180, np.float32),
        timestamps=np.tile(np.arange(6, dtype=np.int64), 30),
    )
    table = ItemTable(np.arange(6).astype(object), [{} for _ in range(6)], np.ones(6, bool))
    repeated = replace(once, items=np.tile(np.array([0, 1, 2, 0, 1, 2], np.int32), 30))
    n_queries = {}
    for name, events in (("once", once), ("repeated", repeated)):
        dataset = Dataset(events, table, 30)
        past = dataset.where(events.timestamps < 3)
        config = HybridConfig(queries_per_user=3)
        ensemble = Hybrid(config, {"collaborative": Collaborative().fit(past, OPTIONS)}, 3).fit(dataset, OPTIONS)
        n_queries[name] = ensemble.learned.n_queries
    assert n_queries == {"once": 90, "repeated": 90}  # masked, those who repeat would have nothing left to look for


@pytest.mark.fit
def test_where_each_users_last_events_are_held_out_it_learns_from_those_that_validate() -> None:
    """Positions as timestamps: a moment would part users, not what is known from what is not."""
    dataset = build_dataset()
    _, counts = np.unique(dataset.interactions.users, return_counts=True)
    places = np.concatenate([np.arange(count) for count in counts]).astype(np.int64)
    split = leave_one_out_split(replace(dataset, interactions=replace(dataset.interactions, timestamps=places)))
    ensemble = Hybrid(None, fitted_base_models(split.train, Collaborative, ContentBased), queries=split.validation)
    ensemble.fit(split.train, OPTIONS)
    assert ensemble.learned.n_queries == len(split.validation)
    expected = split.train.interactions.items
    np.testing.assert_array_equal(ensemble.popularity > 0, np.bincount(expected, minlength=N_ITEMS) > 0)
    later = ensemble.with_refitted(
        fitted_base_models(split.before_test, Collaborative, ContentBased), split.before_test
    )
    figure, alone = (
        evaluate_model(model, split, n_resamples=2).metric("ndcg@10")
        for model in (later, Popularity().fit(split.before_test, OPTIONS))
    )
    assert figure is not None and alone is not None and figure > alone


COLD_SCORES = np.array([*range(12, 0, -1), 0.5, 0.2], np.float32)
COLD = np.arange(14) >= 12


def scores_with_cold_items(factor: float = 1.0) -> Callable[[Histories], np.ndarray]:
    return lambda queries: np.tile(np.float32(factor) * COLD_SCORES, (len(queries), 1))


def boost_of(target: int, *pasts: list[int]) -> ColdItemBoost:
    """Two users who look for `target` among twelve items that score 12, 11, ... 1 and two cold_items at 0.5 and 0.2."""
    told = sp.csr_array((np.ones(2, bool), ([0, 1], [target] * 2)), shape=(2, 14))
    holdout = Holdout(np.arange(2, dtype=np.int32), histories(*pasts), told, sp.csr_array((2, 14), dtype=bool))
    return find_boost(
        lambda queries: np.tile(COLD_SCORES, (len(queries), 1)), COLD, holdout, max_share=0.1, max_cost=0.01
    )


def test_cold_items_are_boosted_into_their_share_of_lists() -> None:
    found = boost_of(1, [0], [])
    # One of ten places each. The first user has had the best item: there 2 is the tenth, and 3 in the other list.
    assert found.share == 0.1
    assert found.value == pytest.approx(2.5, rel=1e-4)
    assert found.ndcg == 1.0


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_a_boost_keeps_its_share_where_base_models_speak_in_other_numbers(factor: float) -> None:
    found = boost_of(1, [0], [])
    seen = np.zeros((2, 14), bool)
    seen[0, 0] = True  # the first user has had the best item, longer ago than the history reaches
    resized = resized_boost(found, scores_with_cold_items(factor), COLD, histories([], []), sp.csr_array(seen))
    assert resized.value == pytest.approx(2.5 * factor, rel=1e-4)
    assert (resized.share, resized.ndcg) == (found.share, found.ndcg)


def test_there_is_no_boost_without_cold_items_nor_one_for_those_who_had_none() -> None:
    scores, queries, seen = scores_with_cold_items(), histories([0]), sp.csr_array((1, 14), dtype=bool)
    assert (
        resized_boost(ColdItemBoost(value=2.5, share=0.1), scores, np.zeros(14, bool), queries, seen) == ColdItemBoost()
    )
    assert resized_boost(ColdItemBoost(), scores, COLD, queries, seen) == ColdItemBoost()


def test_content_speaks_as_softly_as_the_largest_share_of_cold_items_needs() -> None:
    cold_start_models = [ColdStartModel(family="content-based", weight=weight) for weight in (1.0, 0.1, 0.01)]
    measured: list[ColdStartModel | None] = []

    def boost_with(model: ColdStartModel | None) -> ColdItemBoost:
        measured.append(model)
        return {
            1.0: ColdItemBoost(value=1, share=0.0125),
            0.1: ColdItemBoost(value=2, share=0.05),
            0.01: ColdItemBoost(value=3, share=0.05),
        }[model.weight if model else 1.0]

    assert largest_boost(cold_start_models, boost_with, max_share=0.1) == (
        ColdItemBoost(value=2, share=0.05),
        cold_start_models[1],
    )
    assert measured == cold_start_models
    measured.clear()
    assert largest_boost(cold_start_models, boost_with, max_share=0.05)[1] == cold_start_models[1]
    assert measured == cold_start_models[:2]
    assert largest_boost(cold_start_models, lambda model: ColdItemBoost(), max_share=0.1) == (ColdItemBoost(), None)


def test_cold_items_get_no_place_that_somebody_needs() -> None:
    assert boost_of(9, [], []) == ColdItemBoost()  # the tenth of the lists as they are


@pytest.mark.fit
def test_a_boost_is_what_tells_cold_items_apart_from_others(hybrid: Hybrid) -> None:
    boosted = hybrid.with_base_models(hybrid.base_models)
    boosted.cold_items, boosted.cold_item_boost = np.arange(N_ITEMS) < 5, ColdItemBoost(value=0.7, share=0.1, ndcg=1.0)
    queries = histories([8], [8, 9, 10, 11])
    gain = boosted.score(queries) - hybrid.score(queries)
    np.testing.assert_allclose(gain[:, 5:], 0, atol=1e-5)
    np.testing.assert_allclose(gain[:, :5], np.outer(0.7 * np.array([1, 4.0]) ** hybrid.growth, np.ones(5)), rtol=1e-3)


@pytest.mark.fit
def test_where_a_base_model_is_kept_content_speaks_of_cold_items_and_of_nothing_else(hybrid: Hybrid, tmp_path) -> None:
    kept = hybrid.with_base_models(hybrid.base_models)
    weights = {"collaborative": 1.0, "content-based": 0.0}
    chosen = {"weights": weights, "popularity_weight": 0.0, "kept_base_model": "collaborative"}
    kept.learned = hybrid.learned.model_copy(update=chosen)
    kept.cold_items, kept.cold_item_boost = np.arange(N_ITEMS) < 5, ColdItemBoost(value=0.7, share=0.1, ndcg=1.0)
    combined = kept.with_base_models(kept.base_models)
    combined.cold_start_model = ColdStartModel(family="content-based", weight=1.0)
    combined.explained_by = ["collaborative", "content-based"]
    combined.save(tmp_path)
    combined = Hybrid.load(tmp_path, combined.base_models)
    queries = histories([8], [8, 9, 10, 11])
    said = combined.score(queries) - kept.score(queries)
    content = combined.base_models["content-based"].score(queries)[:, :5]
    assert not said[:, 5:].any()
    for row in range(2):  # the same but for scale and place
        assert np.corrcoef(said[row, :5], content[row])[0, 1] == pytest.approx(1, abs=1e-4)

    # What an item of the history says of a cold_item is what content says of it, and of others what the kept one does.
    lists = np.array([[2, 7], [2, 7]], np.int32)
    told = {family: hybrid.with_base_models(hybrid.base_models) for family in weights}
    for family, alone in told.items():
        alone.learned = kept.learned.model_copy(update={"weights": {**dict.fromkeys(weights, 0.0), family: 1.0}})
        alone.explained_by = [family]
    for found, first, second in zip(
        *(model.explain_lists(queries, lists) for model in (combined, *told.values())), strict=True
    ):
        cold_item = first.values[:, 0] + second.values[:, 0]
        np.testing.assert_allclose(found.values, np.stack([cold_item, first.values[:, 1]], axis=1), atol=1e-5)


@pytest.mark.fit
def test_what_comes_after_the_fit_is_cold_and_is_kept_as_one(hybrid: Hybrid, tmp_path) -> None:
    wider = hybrid.with_items(np.array([N_ITEMS], np.int32), [metadata_of(0, 1)])
    assert wider.cold_items[-1] and wider.cold_items.sum() == hybrid.cold_items.sum() + 1
    wider.save(tmp_path)
    reloaded = Hybrid.load(tmp_path, wider.base_models)
    assert reloaded.cold_item_boost == wider.cold_item_boost
    np.testing.assert_array_equal(reloaded.cold_items, wider.cold_items)


def _bounds(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return offsets[:-1], offsets[1:]


def learn_from(
    signals: np.ndarray, popularity: np.ndarray, chosen: np.ndarray, config: RankerConfig = RANKER
) -> LearnedRanker:
    """Learn from one query per user. signals: [users, items, families]; popularity: [items]; chosen: [users]."""
    n_users, n_items, n_families = signals.shape
    everyone = np.broadcast_to(popularity[None, :, None], (n_users, n_items, 1))
    features = np.concatenate([signals, everyone], axis=2).astype(np.float32)
    users = np.arange(n_users, dtype=np.int32)
    targets = sp.csr_array((np.ones(n_users, bool), (users, chosen)), shape=(n_users, n_items))
    masked = sp.csr_array((n_users, n_items), dtype=bool)
    queries = Holdout(users, histories(*([user] for user in range(n_users))), targets, masked)
    return learn_ranker(
        ["first", "second", "third"][:n_families],
        lambda rows: features[rows.items],
        queries,
        config,
        np.random.default_rng(0),
    )


def test_an_ensemble_is_of_all_that_help_and_of_nothing_else() -> None:
    signals = np.random.default_rng(0).normal(size=(150, 60, 3))
    chosen = (signals[:, :, 0] + 0.6 * signals[:, :, 1]).argmax(axis=1)
    learned = learn_from(signals, np.zeros(60), chosen)
    assert learned.kept_base_model is None
    assert learned.weights["first"] > learned.weights["second"] > 0.2
    assert learned.weights["third"] < 0.1
    assert learned.ndcg > max(learned.base_model_ndcg.values())
    assert learned.gain.low is not None and learned.gain.low > 0
    assert learned.gain.mean == pytest.approx(learned.ndcg - max(learned.base_model_ndcg.values()), abs=0.02)
    assert learned.choice.startswith("first") and ": better than first alone, ensemble +" in learned.choice


def test_popularity_gets_weight_where_it_tells_what_base_models_do_not() -> None:
    signals = np.random.default_rng(1).normal(size=(150, 60, 2))
    popularity = np.random.default_rng(2).normal(size=60)
    without = learn_from(signals, popularity, signals.sum(axis=2).argmax(axis=1))
    needed = learn_from(signals, popularity, (signals.sum(axis=2) + popularity).argmax(axis=1))
    assert (without.popularity_weight, needed.popularity_weight) == (0.0, 0.5)


def test_what_base_models_reach_alone_decides_until_there_are_users_to_learn_from() -> None:
    signals = np.random.default_rng(3).normal(size=(150, 60, 2))
    chosen = (signals[:, :, 0] + 0.6 * signals[:, :, 1]).argmax(axis=1)
    weights = {
        users: learn_from(signals, np.zeros(60), chosen, RANKER.model_copy(update={"prior_users": users}))
        for users in (0.0, 150.0, 1e9)
    }
    alone = np.array(list(weights[0.0].base_model_ndcg.values())) ** 4
    learned, between, expected = (np.array(list(found.weights.values())) for found in weights.values())
    np.testing.assert_allclose(expected, alone / alone.sum(), rtol=1e-4)
    np.testing.assert_allclose(between, (learned + expected) / 2, rtol=1e-4)
    assert abs(learned - expected).max() > 0.05


def test_between_equals_the_ensemble_with_the_broader_lists_is_taken() -> None:
    """The second base model tells as much as the first, of the same ten items to everybody."""
    rng = np.random.default_rng(5)
    first = rng.normal(size=(150, 60))
    second = np.tile(np.where(np.arange(60) < 12, 3.0, 0.0), (150, 1)) + 0.1 * rng.normal(size=(150, 60))
    signals = np.stack([first, second], axis=2)
    chosen = (first + second).argmax(axis=1)
    exact = learn_from(signals, np.zeros(60), chosen)
    powers = {"diversity_powers": (0.0, 0.5), "tolerance": 0.2}
    broad = learn_from(signals, np.zeros(60), chosen, RANKER.model_copy(update=powers))
    assert broad.base_model_diversity["first"] > broad.base_model_diversity["second"]
    assert broad.aggregate_diversity > exact.aggregate_diversity
    assert broad.weights["first"] > exact.weights["first"]


def test_one_base_model_is_kept_where_the_others_only_disturb() -> None:
    signals = np.random.default_rng(3).normal(size=(150, 60, 2))
    learned = learn_from(signals, np.zeros(60), signals[:, :, 1].argmax(axis=1))
    assert learned.kept_base_model == "second"
    assert learned.weights == {"first": 0.0, "second": 1.0}
    assert learned.popularity_weight == 0
    assert learned.gain.mean == 0
    assert learned.choice == "second alone: ensemble +0.0 % [+0.0, +0.0] of its NDCG@10 on 150 users"


def test_an_ensemble_is_chosen_where_it_is_better_or_nobody_knows_which_base_model_is_best() -> None:
    """Ninety users in three folds. An ensemble gains a given share of 1 on some users and loses as much on others."""
    users = np.arange(90)
    queries = HeldOut(users, users % 3, np.ones(90))

    def option(weights: list[float], ndcg: np.ndarray) -> RankerOption:
        return RankerOption(np.array(weights), 0.0, ndcg, float(ndcg.mean()), 1)

    swing = np.where(users // 3 % 2 == 0, 0.2, -0.2)  # a standard error of 0.02
    first = option([1, 0], np.full(90, 0.5))
    clearly_second, equal = option([0, 1], np.full(90, 0.3)), option([0, 1], first.query_ndcg - 0.01 + swing)
    kept = {
        (gain, name): choose_components(
            ["a", "b"], [first, other], [option([0.5, 0.5], 0.5 + gain + swing)], queries, 0.0
        )
        for gain in (-0.03, -0.01, 0.01)
        for name, other in (("clear", clearly_second), ("equal", equal))
    }
    assert {key: choice.option is first for key, choice in kept.items()} == {
        (-0.03, "clear"): True,
        (-0.03, "equal"): True,
        (-0.01, "clear"): True,
        (-0.01, "equal"): False,
        (0.01, "clear"): False,
        (0.01, "equal"): False,
    }
    assert kept[(-0.03, "clear")].reason.startswith("a alone: ensemble -6.0 % [")
    assert kept[(0.01, "clear")].reason.startswith("a and b: better than a alone, ensemble +2.0 % [")
    assert kept[(-0.01, "equal")].gain.mean == pytest.approx(-0.01)


def test_an_ensemble_of_the_same_lists_for_all_is_none_unless_it_is_far_better() -> None:
    users = np.arange(90)
    queries = HeldOut(users, users % 3, np.ones(90))

    def option(ndcg: float, diversity: int) -> RankerOption:
        return RankerOption(np.array([0.5, 0.5]), 1.0, np.full(90, ndcg), ndcg, diversity)

    alone, varied = option(0.5, 100), option(0.51, 80)
    for ndcg, far_better in ((0.53, False), (0.56, True)):
        same = option(ndcg, 20)
        chosen = choose_components(["a", "b"], [alone, option(0.1, 100)], [same, varied], queries, 0.005).option
        assert chosen is (same if far_better else varied)


def test_too_few_people_to_tell_base_models_apart_get_even_weights() -> None:
    signals = np.random.default_rng(4).normal(size=(3, 60, 2))
    assert learn_from(signals, np.zeros(60), np.array([1, 2, 3])).weights == {"first": 0.5, "second": 0.5}


@pytest.mark.fit
def test_where_the_other_base_model_is_noise_it_is_the_one_and_says_so(tmp_path) -> None:
    dataset = build_dataset()
    moment = until(dataset)
    past = dataset.where(dataset.interactions.timestamps < moment)
    config = HybridConfig(queries_per_user=8, ranker=RankerConfig(popularity_weights=(0.0,)))
    base_models = {"collaborative": Collaborative().fit(past, OPTIONS), "noise": Noise().fit(past, OPTIONS)}
    ensemble = Hybrid(config, base_models, moment).fit(dataset, OPTIONS)
    assert ensemble.kept_base_model == "collaborative"
    assert ensemble.learned.weights == {"collaborative": 1.0, "noise": 0.0}
    assert ensemble.record()["components"].startswith("collaborative alone: ensemble ")
    refitted = {"collaborative": Collaborative().fit(dataset, OPTIONS), "noise": Noise().fit(dataset, OPTIONS)}
    ensemble.with_refitted(refitted, dataset).save(tmp_path)
    served, alone = Hybrid.load(tmp_path, refitted), refitted["collaborative"]
    liked = histories(items_of(2)[:3].tolist(), [], list(range(40)))
    lists = alone.recommend(liked, N_ITEMS).items
    np.testing.assert_array_equal(served.recommend(liked, N_ITEMS).items, lists)
    np.testing.assert_array_equal(served.score(liked), alone.score(liked))
    np.testing.assert_array_equal(served.evidence(liked, lists[:, :10]), alone.evidence(liked, lists[:, :10]))
    np.testing.assert_array_equal(served.similar(lists[0, :5], 5).items, alone.similar(lists[0, :5], 5).items)
    assert set(served.component_scores(liked)) == {"collaborative"}


class Noise(Collaborative):
    """Scores at random, but the same for the same history."""

    def score_profiles(self, profiles: Profiles) -> np.ndarray:
        rng = np.random.default_rng(int(profiles.items.sum()))
        return rng.random((len(profiles), self.n_items), dtype=np.float32)


@pytest.mark.fit
def test_scores_of_one_history_are_no_larger_than_its_size_warrants(hybrid: Hybrid) -> None:
    """Popularity grows with the history as the personal part does, so that neither a short nor a long one drowns."""
    short, long = histories(items_of(0)[:2].tolist()), histories(items_of(0)[:20].tolist())
    scores = [hybrid.component_scores(rows) for rows in (short, long)]
    shares = [each["hybrid"].std() / each["collaborative"].std() for each in scores]
    assert 1 / 3 < shares[0] / shares[1] < 3


@pytest.mark.fit
@given(items=st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=25, unique=True))
@settings(max_examples=60, deadline=None)
def test_without_an_item_a_score_falls_by_its_contribution_and_a_little_popularity(hybrid: Hybrid, items: list) -> None:
    whole = histories(items)
    target = hybrid.recommend(whole, 1).items[:, 0]
    found = hybrid.explain(whole, target)[0]
    less = histories([item for item in items if item != found.items[0]])
    before, after = hybrid.component_scores(whole), hybrid.component_scores(less)
    lost = {name: float((before[name] - after[name])[0, target[0]]) for name in before}
    assert lost["collaborative"] + lost["content-based"] == pytest.approx(float(found.values[0]), rel=1e-3, abs=1e-3)
    assert lost["hybrid"] >= 0
    if found.values[0] > 1e-3:
        assert hybrid.score(less)[0, target[0]] < hybrid.score(whole)[0, target[0]]


@pytest.mark.fit
def test_evidence_that_is_not_true_is_not_given() -> None:
    dataset = build_dataset()
    moment = until(dataset)
    past = dataset.where(dataset.interactions.timestamps < moment)
    base_models = fitted_base_models(past, Collaborative, ContentBased)
    honest = Hybrid(None, base_models, moment).fit(dataset, OPTIONS)
    assert honest.evidence_agreement == 1.0
    lists = honest.recommend(histories([1, 2]), 3).items
    assert (honest.evidence(histories([1, 2]), lists)[:, :, 0] >= 0).all()
    silent = Hybrid(HybridConfig(required_agreement=1.0), {"upside-down": UpsideDown().fit(past, OPTIONS)}, moment)
    silent.fit(dataset, OPTIONS)
    assert silent.evidence_agreement is not None and silent.evidence_agreement < 0.9
    assert silent.explained_by == []
    assert (silent.evidence(histories([1, 2]), lists) == NO_ITEM).all()


class UpsideDown(Collaborative):
    """Gives the items that speak against an item as those that speak for it."""

    def leave_one_out_contributions(self, profiles: Profiles, items: np.ndarray) -> np.ndarray:
        return -super().leave_one_out_contributions(profiles, items)


@pytest.mark.fit
def test_new_base_models_bring_their_own_scale(hybrid: Hybrid) -> None:
    dataset = build_dataset()
    louder = fitted_base_models(dataset, Collaborative, ContentBased)
    for term in louder["collaborative"].terms:
        term.kernel.weights = term.kernel.weights * 1_000
    louder["collaborative"].base = louder["collaborative"].base * 1_000
    refitted = hybrid.with_refitted(louder, dataset)
    liked = histories(items_of(3)[:4].tolist())
    np.testing.assert_allclose(refitted.score(liked), hybrid.score(liked), rtol=1e-3, atol=1e-3)


@pytest.mark.fit
def test_a_missing_base_model_is_named(hybrid: Hybrid, tmp_path) -> None:
    hybrid.save(tmp_path)
    with pytest.raises(ValueError, match="content-based missing"):
        Hybrid.load(tmp_path, {"collaborative": hybrid.base_models["collaborative"]})


@pytest.mark.fit
def test_base_models_that_know_newer_items_widen_a_loaded_ensemble(hybrid: Hybrid, tmp_path) -> None:
    hybrid.save(tmp_path)
    change = (np.array([N_ITEMS], np.int32), [metadata_of(1, 70)])
    wider = {name: model.with_items(*change) for name, model in hybrid.base_models.items()}
    loaded = Hybrid.load(tmp_path, wider)
    liked = histories(items_of(1)[:4].tolist())
    np.testing.assert_array_equal(loaded.score(liked), hybrid.with_items(*change).score(liked))


@pytest.mark.fit
def test_base_models_of_different_catalogues_are_refused(hybrid: Hybrid, tmp_path) -> None:
    hybrid.save(tmp_path)
    change = (np.array([N_ITEMS], np.int32), [metadata_of(1, 70)])
    uneven = {**hybrid.base_models, "collaborative": hybrid.base_models["collaborative"].with_items(*change)}
    with pytest.raises(ValueError, match="must score the same"):
        Hybrid.load(tmp_path, uneven)


@pytest.mark.fit
def test_an_ensemble_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs fitted base models"):
        Hybrid().fit(build_dataset(), OPTIONS)


@pytest.mark.fit
def test_a_base_model_that_reads_no_histories_can_be_combined() -> None:
    dataset = build_dataset()
    moment = until(dataset)
    past = dataset.where(dataset.interactions.timestamps < moment)
    ensemble = Hybrid(None, fitted_base_models(past, Collaborative, Popularity), moment).fit(dataset, OPTIONS)
    assert np.isfinite(ensemble.score(histories([1], []))).all()
    assert ensemble.learned.weights["collaborative"] > ensemble.learned.weights["popularity"]
