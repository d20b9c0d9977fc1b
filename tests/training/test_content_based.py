"""The label mixture: what it learns from labels, what it expects of cold items, and the share of lists they get."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from tests.training.catalogue import DAY, N_ITEMS, build_dataset, genre_of, histories, items_of
from training.data.dataset import Dataset, Interactions, ItemTable
from training.models.cold_start.mixture_weights import (
    POPULARITY,
    best,
    boost_for,
    fit_mixture_weights,
    given_label,
    label_weights,
    recent_rates,
)
from training.models.cold_start.rate import ColdStartRate
from training.models.content_based.config import ContentBasedConfig, LabelMixtureConfig
from training.models.content_based.encoder import ContentEncoder
from training.models.content_based.fields import MetadataField
from training.models.content_based.labels import LabelConfig, LabelReader
from training.models.content_based.model import ContentBased
from training.models.contract import RuntimeOptions

OPTIONS = RuntimeOptions(threads=1)
SHOP = [
    {"kind": "tea", "size": "S", "price": 1.0, "tags": ["old"]},
    {"kind": "tea", "size": "L", "price": 4.0},
    {"kind": "jam", "size": "S", "price": 2.0},
    {"kind": "jam", "size": "L", "price": 3.0, "tags": ["new", "bio"]},
    {"kind": "jam", "size": "L", "price": 3.5, "tags": ["bio"]},
]


def dataset_of(users: list[int], items: list[int], days: list[int], metadata: list[dict]) -> Dataset:
    order = np.lexsort((items, days, users))
    events = Interactions(
        np.array(users, np.int32)[order],
        np.array(items, np.int32)[order],
        np.zeros(len(users), np.int8),
        np.ones(len(users), np.float32),
        np.array(days, np.int64)[order] * DAY,
    )
    table = ItemTable(np.arange(len(metadata)).astype(object), metadata, np.ones(len(metadata), bool))
    return Dataset(events, table, max(users) + 1)


def test_fields_and_their_pairs_become_labels_that_share_one_out() -> None:
    encoder = ContentEncoder().fit(SHOP)
    blocks = LabelReader(LabelConfig(bins=2)).fit(encoder, SHOP)
    assert set(blocks) >= {"kind", "size", "price", "tags", "kind & size", "kind & price"}
    same = (blocks["kind & size"] @ blocks["kind & size"].T).toarray()
    assert np.argwhere(np.triu(same, 1)).tolist() == [[3, 4]]  # the two large jams
    assert sorted(blocks["tags"][[3]].data.tolist()) == [0.5, 0.5]
    assert blocks["tags"].sum(axis=1).tolist() == [1, 0, 0, 1, 1]
    ranges = (blocks["price"] @ blocks["price"].T).toarray()
    assert ranges[0].tolist() == [1, 0, 1, 1, 0]  # up to the median of 3


def test_what_was_learned_is_read_again_and_what_is_unknown_is_left_out(tmp_path) -> None:
    encoder = ContentEncoder().fit(SHOP)
    reader = LabelReader()
    blocks = reader.fit(encoder, SHOP)
    reader.keep(["kind & size", "tags"])
    reader.save(tmp_path)
    reloaded = LabelReader.load(tmp_path).read(encoder, [*SHOP, {"kind": "tea", "size": "XL", "tags": ["odd", "bio"]}])
    assert list(reloaded) == [name for name in blocks if name in {"kind & size", "tags"}]
    for name, block in reloaded.items():
        np.testing.assert_array_equal(block[:5].toarray(), blocks[name].toarray())
    assert reloaded["kind & size"][[5]].nnz == 0
    assert reloaded["tags"][[5]].sum() == 1  # all of it for the tag that is known


def test_the_kind_of_label_that_tells_gets_the_weight() -> None:
    rng = np.random.default_rng(0)
    metadata = [{"kind": f"k{item % 5}", "noise": f"n{item // 10}"} for item in range(50)]
    users, items, days = [], [], []
    for user in range(60):
        users += [user] * 8
        items += rng.choice(np.arange(user % 5, 50, 5), 8, replace=False).tolist()  # one kind each
        days += list(range(8))
    dataset = dataset_of(users, items, days, metadata)
    moment = dataset.interactions.timestamps < 6 * DAY
    blocks = LabelReader().fit(ContentEncoder().fit(metadata), metadata)
    found = fit_mixture_weights(dataset.where(moment), blocks, np.ones(50), dataset.where(~moment), None, 100, 0)
    # Of the ten items of a kind six are had, which no weight can tell: a kind says 1/10, an item of noise 1/50.
    assert found.weights["kind"] > 0.9
    assert sum(found.weights.values()) == pytest.approx(1)
    assert POPULARITY in found.weights


def test_too_few_users_teach_nothing() -> None:
    dataset = dataset_of([0, 0, 1, 1], [0, 1, 2, 3], [0, 5, 0, 5], SHOP)
    blocks = LabelReader(LabelConfig(paired_fields=0)).fit(ContentEncoder().fit(SHOP), SHOP)
    before = dataset.interactions.timestamps < 3 * DAY
    found = fit_mixture_weights(dataset.where(before), blocks, np.ones(5), dataset.where(~before), None, 100, 0)
    assert set(found.weights.values()) == {1 / (len(blocks) + 1)}


def test_an_item_is_chosen_of_a_label_as_often_as_of_late() -> None:
    block = sp.csr_array(np.array([[1, 0], [1, 0], [0, 1]], np.float32))
    rates = np.array([3.0, 1.0, 5.0])
    np.testing.assert_allclose(given_label(block, rates).toarray(), [[0.75, 0], [0.25, 0], [0, 1]])
    np.testing.assert_allclose(label_weights({"one": block}, {"one": 0.5}, rates), [0.5 / 4, 0.5 / 5])


def test_recent_rates_halve_with_age_and_add_up_to_the_events_of_the_horizon() -> None:
    dataset = dataset_of([0, 0, 0, 0], [0, 1, 1, 2], [0, 10, 10, 10], SHOP)
    rates = recent_rates(dataset, half_life_days=10.0, horizon_days=5.0)
    # Masses 0.5, 2 and 1; three events lie within five days.
    np.testing.assert_allclose(rates, np.array([0.5, 2, 1, 0, 0]) * 3 / 3.5)


def test_what_came_out_lately_is_expected_to_be_chosen_and_what_is_old_is_not() -> None:
    """Ten films come out every tenth day and are chosen by five users half a month later; forty old ones never are."""
    out = [10 + item // 10 * 10 for item in range(200)]
    metadata = [{"out": str(np.datetime64(day, "D"))} for day in out] + [{"out": "1955-01-01"}] * 40
    events = [(user, item, out[item] + 15 + user) for item in range(170) for user in range(5)]
    dataset = dataset_of(*map(list, zip(*events, strict=True)), metadata)
    rate = ColdStartRate.fit(dataset, [MetadataField(path="out", kind="date")], horizon_days=10.0)
    newest = int(dataset.interactions.timestamps.max() // DAY)
    young, coming, old, undated = rate.expected(
        [{"out": str(np.datetime64(newest + days, "D"))} for days in (-9, 5, -7000)] + [{}]
    )
    assert young == pytest.approx(5, rel=0.2)
    assert young > 3 * undated > 0
    assert max(coming, old) < undated / 2
    assert rate.rate == pytest.approx(undated)


def test_a_year_tells_young_from_old_as_a_date_does() -> None:
    metadata = [{"year": 1960 + item % 11, "pages": 100 + item} for item in range(110)]
    # After the first week only what is of the last year is chosen.
    events = [(user, item, 100 + item) for item in range(10, 99, 11) for user in range(8)]
    events += [(9, item, item % 7) for item in range(40) if item % 11 != 10]
    dataset = dataset_of(*map(list, zip(*events, strict=True)), metadata)
    fields = [MetadataField(path=path, kind="numeric") for path in ("pages", "year")]
    rate = ColdStartRate.fit(dataset, fields, horizon_days=30.0)
    assert rate.date_fields == {"year": "year"}
    young, old = rate.expected([{"year": 1970}, {"year": 1960}])
    assert young > 2 * old


def test_a_boost_gives_cold_items_their_share_of_places() -> None:
    warm = np.array([[9.0, 4.0], [9.0, 8.0]])
    cold = np.array([[2.0, 1.0], [1.0, 0.0]])
    # Lists of two. Twice its score lets the first cold_item into the first list, eight times the other into the second.
    assert boost_for(0.25, warm, cold) == pytest.approx(2, rel=1e-5)
    assert boost_for(0.5, warm, cold) == pytest.approx(8, rel=1e-5)
    assert boost_for(0.75, warm, cold) == pytest.approx(9, rel=1e-5)  # the second one of the first list
    assert boost_for(1.0, warm, cold) == 1.0  # there are not so many
    assert boost_for(0.0, warm, cold) == 1.0


def test_the_best_scores_of_some_columns_come_first() -> None:
    scores = np.array([[1.0, 5.0, 3.0, 4.0]])
    assert best(scores, np.array([True, False, True, True]), 2).tolist() == [[4.0, 3.0]]
    assert best(scores, np.array([False, True, False, False]), 2).tolist() == [[5.0, 0.0]]


def mixed(share: float = 0.1) -> ContentBased:
    return ContentBased(ContentBasedConfig(mixture=LabelMixtureConfig(cold_item_share=share)))


def lists_of(model: ContentBased, dataset: Dataset) -> np.ndarray:
    users = np.unique(dataset.interactions.users)
    return model.recommend(dataset.histories(users), 10, exclude=dataset.seen[users].toarray()).items


def world_with_cold_items() -> tuple[Dataset, np.ndarray]:
    dataset = build_dataset()
    cold_items = np.concatenate([items_of(genre)[::3] for genre in range(4)])
    return dataset.where(~np.isin(dataset.interactions.items, cold_items)), cold_items


@pytest.mark.fit
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_cold_items_take_about_the_configured_share_of_the_lists(share: float) -> None:
    dataset, cold_items = world_with_cold_items()
    model = mixed(share).fit(dataset, OPTIONS)
    assert np.isin(lists_of(model, dataset), cold_items).mean() == pytest.approx(share, abs=0.03)


@pytest.mark.fit
def test_cold_items_go_to_those_who_choose_their_kind() -> None:
    dataset, cold_items = world_with_cold_items()
    model = mixed(0.2).fit(dataset, OPTIONS)
    for genre in range(4):
        liked = np.setdiff1d(items_of(genre), cold_items)[:5].tolist()
        scores = model.score(histories(liked))[0, cold_items]
        assert {genre_of(item) for item in cold_items[np.argsort(-scores)[:5]]} == {genre}


@pytest.mark.fit
def test_an_item_added_later_is_cold_and_an_edited_one_keeps_its_public() -> None:
    dataset, cold_items = world_with_cold_items()
    model = mixed().fit(dataset, OPTIONS)
    twin, changed = dataset.items.metadata[cold_items[0]], int(items_of(0)[1])
    wider = model.with_items(np.array([changed, N_ITEMS], np.int32), [dataset.items.metadata[changed], twin])
    scores = wider.score(histories(items_of(0)[1:4].tolist()))[0]
    assert scores[N_ITEMS] == pytest.approx(scores[cold_items[0]], rel=1e-5)
    assert scores[changed] == pytest.approx(model.score(histories(items_of(0)[1:4].tolist()))[0, changed], rel=1e-5)


@pytest.mark.fit
@pytest.mark.parametrize("narrow", [0, 256])
def test_as_a_base_model_cold_items_score_what_is_expected_of_them_without_a_boost(
    narrow, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr("training.models.cold_start.label_mixture.DENSE_LABELS", narrow)
    dataset, cold_items = world_with_cold_items()
    boosted, plain = mixed(0.3).fit(dataset, OPTIONS), mixed(0.0).fit(dataset, OPTIONS)
    twin = [dataset.items.metadata[cold_items[0]]]
    added = np.array([N_ITEMS], np.int32)
    queries = histories([0, 5, 9], [], [7])
    expected = plain.with_items(added, twin).score(queries)
    assert not np.allclose(boosted.with_items(added, twin).score(queries), expected, rtol=0.1)
    boosted.save(tmp_path)
    for model in (boosted, ContentBased.load(tmp_path)):
        for scores in (model.as_base_model().with_items(added, twin), model.with_items(added, twin).as_base_model()):
            np.testing.assert_allclose(scores.score(queries), expected, rtol=1e-4, atol=1e-6)
    assert plain.as_base_model() is plain


@pytest.mark.fit
def test_many_labels_are_held_sparsely_and_score_the_same(monkeypatch, tmp_path) -> None:
    dataset, cold_items = world_with_cold_items()
    dense = mixed().fit(dataset, OPTIONS)
    monkeypatch.setattr("training.models.cold_start.label_mixture.DENSE_LABELS", 0)
    sparse = mixed().fit(dataset, OPTIONS)
    assert (dense.kernel.form, sparse.kernel.form) == ("factors", "sparse-factors")
    queries = histories([0, 5, 9], [], [7])
    np.testing.assert_allclose(sparse.score(queries), dense.score(queries), rtol=1e-4, atol=1e-5)
    lists = np.array([[1, 2, 3], [4, 5, 6], [8, 9, 10]], np.int32)
    for one, other in zip(sparse.explain_lists(queries, lists), dense.explain_lists(queries, lists), strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-4, atol=1e-5)
    sparse.save(tmp_path)
    reloaded = ContentBased.load(tmp_path)
    np.testing.assert_array_equal(reloaded.score(queries), sparse.score(queries))
    added = (np.array([N_ITEMS], np.int32), [dataset.items.metadata[cold_items[0]]])
    np.testing.assert_allclose(
        reloaded.with_items(*added).score(queries), dense.with_items(*added).score(queries), rtol=1e-4, atol=1e-5
    )


@pytest.mark.fit
def test_a_catalogue_without_metadata_is_ranked_by_what_is_chosen() -> None:
    dataset = build_dataset()
    bare = replace(dataset, items=replace(dataset.items, metadata=[{} for _ in range(N_ITEMS)]))
    model = mixed().fit(bare, OPTIONS)
    rates = recent_rates(bare, 14.0, 30.0)
    assert int(model.score(histories([3]))[0].argmax()) == int(rates.argmax())
