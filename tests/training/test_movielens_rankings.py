"""What the linear families and the hybrid over them promise on real data: MovieLens 100K, at full size."""

from functools import cache

import numpy as np
import pytest

from tests.fixtures.movielens_dataset import movielens_100k
from tests.training.catalogue import histories
from training.config import load_config
from training.data.dataset import Dataset
from training.data.splits import Split, temporal_split
from training.evaluation.report import evaluate_model
from training.models.contract import Recommender, RuntimeOptions
from training.models.hybrid.model import Hybrid
from training.models.registry import family_class

pytestmark = pytest.mark.fit

OPTIONS = RuntimeOptions(threads=2)
BASE_MODELS = ("collaborative", "content-based")
FAMILIES = (*BASE_MODELS, "hybrid")
N_LISTED = 10


@cache
def split() -> Split:
    return temporal_split(movielens_100k())


def fit(family: str, dataset: Dataset) -> Recommender:
    return family_class(family)(load_config(family)).fit(dataset, OPTIONS)


@cache
def learned_hybrid() -> Hybrid:
    tuned = {family: fit(family, split().train) for family in BASE_MODELS}
    return Hybrid(load_config("hybrid"), tuned, split().known_until).fit(split().before_test, OPTIONS)


@cache
def served(family: str) -> Recommender:
    """Fitted on everything, as what serves is."""
    if family == "hybrid":
        return learned_hybrid().with_refitted({name: served(name) for name in BASE_MODELS}, movielens_100k())
    return fit(family, movielens_100k())


@cache
def warm_ndcg(family: str) -> float:
    """NDCG@10 of users with a history, fitted on the oldest 90 % of events, where the last 10 % are the targets."""
    if family == "hybrid":
        base_models = {name: fit(name, split().before_test) for name in BASE_MODELS}
        model: Recommender = learned_hybrid().with_refitted(base_models, split().before_test)
    else:
        model = fit(family, split().before_test)
    figure = evaluate_model(model, split(), n_resamples=2).metric("ndcg@10", "warm")
    assert figure is not None
    return figure


def films_of(genre: str, n: int, but: str = "") -> list[int]:
    """The n most rated films of a genre that are not of another."""
    dataset = movielens_100k()
    counts = np.bincount(dataset.interactions.items, minlength=dataset.n_items)
    genres = [metadata["genres"] for metadata in dataset.items.metadata]
    found = [int(item) for item in np.argsort(-counts, kind="stable") if genre in genres[item]]
    return [item for item in found if but not in genres[item]][:n]


def listed(family: str, liked: list[int]) -> list[int]:
    return [int(item) for item in served(family).recommend(histories(liked), N_LISTED).items[0]]


@pytest.mark.parametrize(
    ("family", "floor"),
    [("popularity", 0.20), ("item-knn", 0.18), ("collaborative", 0.24), ("content-based", 0.09), ("hybrid", 0.24)],
)
def test_figures_reach_what_was_measured(family: str, floor: float) -> None:
    assert warm_ndcg(family) > floor


def test_the_hybrid_beats_its_base_models() -> None:
    assert warm_ndcg("hybrid") > max(warm_ndcg(name) for name in BASE_MODELS)


@pytest.mark.parametrize("family", FAMILIES)
def test_users_of_different_genres_get_different_lists(family: str) -> None:
    horror, children = films_of("Horror", 5, but="Children's"), films_of("Children's", 5, but="Horror")
    assert len(set(listed(family, horror)) & set(listed(family, children))) <= N_LISTED // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_one_more_like_changes_the_order_of_a_list(family: str) -> None:
    liked = films_of("Horror", 5)
    before = listed(family, liked)
    more = next(item for item in films_of("Western", 50) if item not in before)
    after = listed(family, [*liked, more])
    common = set(before) & set(after) - {more}
    assert [item for item in before if item in common] != [item for item in after if item in common]


@pytest.mark.parametrize("family", FAMILIES)
def test_some_of_a_list_names_evidence_among_the_liked(family: str) -> None:
    liked = films_of("Sci-Fi", 5)
    found = served(family).evidence(histories(liked), np.array([listed(family, liked)], np.int32))
    assert set(found[0, 0]) <= {*liked, -1}
    assert (found[0, :, 0] >= 0).any()


def test_families_do_not_all_say_the_same() -> None:
    liked = films_of("Comedy", 5)
    assert len({tuple(listed(family, liked)) for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_lists_of_two_hundred_users_cover_more_than_a_tenth_of_the_catalogue(family: str) -> None:
    dataset = movielens_100k()
    users = np.sort(np.random.default_rng(0).choice(dataset.n_users, 200, replace=False)).astype(np.int32)
    lists = served(family).recommend(dataset.histories(users), N_LISTED).items
    assert len(np.unique(lists)) > dataset.n_items / 10
