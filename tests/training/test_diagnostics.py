"""What a training shows beside its figures: groups of items by popularity, reliability of scores, and the card."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

from tests.training.catalogue import build_dataset
from training.data.splits import temporal_split
from training.evaluation.diagnostics import diagnose, popularity_groups
from training.evaluation.rankings import rank_test_queries
from training.models.contract import RuntimeOptions
from training.models.registry import family_class
from training.tracking.model_card import MAX_CHARACTERS, shortened_card, version_card
from training.tracking.plots import training_plots
from training.train import TrainedModel, train_family

DATASET = build_dataset()


def test_a_group_holds_a_tenth_of_the_events_and_items_without_events_are_apart() -> None:
    assert popularity_groups(np.array([1, 5, 0, 3, 1])).tolist() == [8, 0, 10, 5, 9]
    assert popularity_groups(np.zeros(3, dtype=np.int64)).tolist() == [10, 10, 10]


@pytest.mark.fit
def test_items_with_higher_scores_of_a_good_model_are_chosen_more_often() -> None:
    split = temporal_split(DATASET)
    model = family_class("collaborative")().fit(split.before_test, RuntimeOptions(threads=1))
    found = diagnose(model, DATASET, split, rank_test_queries(model, split))
    assert found.reliability is not None and found.popularity is not None
    assert found.reliability.chosen[-1] > 2 * found.reliability.chosen[0]
    allowed = len(split.test) * split.test.masked.shape[1] - split.test.masked.nnz
    assert sum(found.reliability.pairs) <= allowed
    for shares in (found.popularity.targets, found.popularity.listed, found.popularity.hits):
        assert len(shares) == 11 and sum(shares) == pytest.approx(1)
    assert (found.data.users, found.data.items) == (DATASET.n_users, DATASET.n_items)
    assert found.data.evaluated_users == len(split.test)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return train_family("popularity", DATASET, options=RuntimeOptions(threads=1))


@pytest.mark.fit
def test_a_card_names_limits_and_shows_foreign_text_as_text(trained: TrainedModel) -> None:
    notes = {"kept_base_model": "x`<img src=x onerror=alert(1)>|[a](javascript:b)", "stopped": "time"}
    report = trained.report.model_copy(update={"notes": notes, "results": []})
    card = version_card(replace(trained, report=report, diagnostics=None), "acme", "7", {"popularity": "3"}, "abc")
    assert "`x'<img src=x onerror=alert(1)>¦[a](javascript:b)`" in card
    assert "ran out of its time" in card and "nothing was measured" in card and "popularity version 3" in card
    assert len(shortened_card("a line\n" * 2_000)) <= MAX_CHARACTERS
    curve = replace(trained, report=report.model_copy(update={"notes": {"$cost$ of <b>": [3.0, 2.0]}}))
    training_plots(curve)["learning_curve"].savefig(BytesIO())  # raises where a name is read as a formula
