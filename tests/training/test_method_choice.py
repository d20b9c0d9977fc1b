"""`collaborative` and `content-based` choose how they learn by events that they hold out of their own data."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import scipy.sparse as sp

from feature_store.interaction_types import SeenPolicy
from tests.fixtures.worlds import WORLDS, generate_world
from tests.training.catalogue import build_dataset, histories
from training.config import config_for, load_config
from training.data.dataset import MIN_REPEAT_SHARE, Dataset, Interactions, ItemTable
from training.data.profile import DataProfile
from training.data.splits import Holdout, last_moments, leave_one_out_split
from training.evaluation.rankings import rank_queries
from training.models.collaborative.model import Collaborative, CollaborativeConfig
from training.models.content_based.bilinear import BilinearContent
from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.held_out import held_out_ndcg
from training.models.registry import family_class, load_model, save_model

OPTIONS = RuntimeOptions(threads=1)
PROFILE = DataProfile.of(build_dataset())


def three_users() -> Dataset:
    """User 0 ends with the basket 2, 3; all of user 1 is one basket; user 2 has too little to hold out."""
    users = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2], np.int32)
    items = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0], np.int32)
    times = np.array([1, 2, 3, 3, 5, 5, 5, 5, 7], np.int64)
    events = Interactions(users, items, np.zeros(9, np.int8), np.ones(9, np.float32), times)
    return Dataset(events, ItemTable(np.arange(4).astype(object), [{}] * 4, np.ones(4, bool)), 3)


def test_the_last_basket_is_held_out_whole_but_never_more_than_half_of_the_events() -> None:
    past, queries = last_moments(three_users(), "all", n_users=9, seed=0)
    assert queries.users.tolist() == [0, 1]
    assert queries.targets[[0]].indices.tolist() == [2, 3]
    assert queries.targets[[1]].nnz == 2
    assert np.bincount(past.interactions.users).tolist() == [2, 2, 1]
    again = last_moments(three_users(), "all", n_users=9, seed=0)[1]
    assert (again.targets != queries.targets).nnz == 0
    assert last_moments(three_users(), "all", n_users=1, seed=0)[1].users.size == 1


def test_ndcg_of_held_out_events_is_that_of_the_definition() -> None:
    dataset = three_users()
    targets = sp.csr_array(np.array([[0, 0, 1, 1], [0, 1, 0, 0]], dtype=bool))
    masked = sp.csr_array(np.array([[1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool))
    queries = Holdout(np.array([0, 1], np.int32), dataset.histories(np.array([0, 1], np.int32)), targets, masked)
    scores: FloatMatrix = np.array([[9, 5, 6, 1], [3, 2, 2, 1]], np.float32)
    second, third = 1 / np.log2(3), 1 / np.log2(4)
    found = held_out_ndcg(scores, queries)
    assert found[0] == pytest.approx((1 + third) / (1 + second))  # ranks 1 and 3: item 0 is masked
    assert found[1] == pytest.approx(1 / np.log2(1 + 2.5))  # ranks 2 and 3 are shared


def test_a_configuration_that_names_no_method_means_what_it_meant() -> None:
    stored = CollaborativeConfig.model_validate({"decay_half_lives": [1.0, 20.0], "regularisation": 1000.0})
    assert stored.method == "by-size"
    assert config_for("collaborative", PROFILE).model_dump()["method"] == "auto"
    assert config_for("content-based", PROFILE, {"held_out_users": 0}) == config_for(
        "content-based", PROFILE
    ).model_copy(update={"held_out_users": 0})


def test_a_large_catalogue_of_repeated_items_keeps_what_was_chosen_for_such_data() -> None:
    large = replace(PROFILE, n_items=60_000, repeat_share=0.5)
    assert config_for("collaborative", large) == load_config("collaborative")
    assert config_for("collaborative", replace(large, repeat_share=0.1)).model_dump()["method"] == "auto"


def test_the_label_mixture_is_the_default_where_users_repeat_items_and_times_are_known() -> None:
    repeating = replace(PROFILE, repeat_share=0.5, span_days=100.0)
    assert config_for("content-based", repeating).model_dump()["mixture"] is not None
    for other in (replace(repeating, repeat_share=0.1), replace(repeating, span_days=0.0)):
        assert config_for("content-based", other).model_dump()["mixture"] is None


@pytest.mark.fit
@pytest.mark.parametrize("family", ["collaborative", "content-based"])
def test_what_was_chosen_is_recorded_saved_and_kept_by_later_fits(family: str, tmp_path: Path) -> None:
    data = build_dataset()
    model = family_class(family)(config_for(family, replace(PROFILE, repeat_share=0.0))).fit(data, OPTIONS)
    assert isinstance(model, Collaborative | BilinearContent)
    assert model.choice is not None
    assert model.record()["held_out_ndcg"] > 0 and model.record()["held_out_queries"] > 50
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Collaborative | BilinearContent)
    assert loaded.choice == model.choice and loaded.record() == model.record()
    queries = histories([3, 5, 9])
    np.testing.assert_array_equal(loaded.score(queries), model.score(queries))
    again = loaded.refit(data, RuntimeOptions(threads=1, seed=1))  # another seed would hold out others
    assert isinstance(again, Collaborative | BilinearContent) and again.choice == model.choice


@pytest.mark.fit
def test_too_little_to_hold_out_leaves_the_method_to_the_size() -> None:
    data = build_dataset()
    few = data.where(data.interactions.users < 20)
    model = Collaborative(CollaborativeConfig(method="auto")).fit(few, OPTIONS)
    assert model.choice is None and model.record() == {}
    by_size = Collaborative(CollaborativeConfig()).fit(few, OPTIONS)
    np.testing.assert_array_equal(model.score(histories([3])), by_size.score(histories([3])))


def test_transitions_of_a_large_catalogue_are_refused() -> None:
    with pytest.raises(ValueError, match="transition_items"):
        Collaborative(CollaborativeConfig(method="transitions", transition_items=100)).fit(build_dataset(), OPTIONS)


@pytest.mark.fit
@pytest.mark.parametrize("name", ["some-repeats", "sessions"])
def test_collaborative_is_no_worse_than_the_baseline_by_its_defaults(name: str) -> None:
    """At least 97 % of item-knn, or not shown to be below that."""
    split = leave_one_out_split(generate_world(WORLDS[name]), max_users=2_000)
    profile = DataProfile.of(split.train)
    ndcg = {
        family: rank_queries(
            family_class(family)(config_for(family, profile)).fit(split.before_test, OPTIONS), split.test
        ).per_user["ndcg@10"]
        for family in ("item-knn", "collaborative")
    }
    less = ndcg["collaborative"] - 0.97 * ndcg["item-knn"]
    assert less.mean() > -2 * less.std() / np.sqrt(len(less))
    assert ndcg["item-knn"].mean() > 0.01  # there is something to find


@pytest.mark.fit
def test_a_choice_ranks_as_the_lists_are_ranked() -> None:
    """Users repeat items, so a fit that ranks what they had already learns to repeat, which other lists cannot use."""
    world = generate_world(replace(WORLDS["medium"], users=1_500, items=700, tastes=14))
    assert world.repeat_share > MIN_REPEAT_SHARE
    config = config_for("collaborative", DataProfile.of(world))
    weights, ndcg = {}, {}
    unseen = leave_one_out_split(world, "all", max_users=1_500)
    for policy in get_args(SeenPolicy):
        model = Collaborative(config).fit(unseen.before_test.served_by(policy), OPTIONS)
        assert isinstance(model, Collaborative) and model.choice is not None
        weights[policy] = max(method.repeat_weight for method in model.choice.methods)
        ndcg[policy] = rank_queries(model, unseen.test).per_user["ndcg@10"].mean()
    assert weights["all"] == 0 < weights["none"]
    assert ndcg["all"] > ndcg["none"]
