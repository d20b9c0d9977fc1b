"""The score map keeps every order and lands in [0, 1]."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.catalogue import build_dataset
from training.evaluation.calibration import ScoreMap, fit_score_map
from training.models.contract import RuntimeOptions
from training.models.item_knn import ItemKnn
from training.models.popularity import Popularity

FLOATS = st.floats(-1e4, 1e4, width=32)


@given(st.lists(FLOATS, min_size=2, unique=True), FLOATS, st.floats(1e-3, 1e3))
def test_different_raw_scores_stay_different_and_in_order(raw: list[float], center: float, scale: float) -> None:
    found = ScoreMap(center, scale)(np.sort(np.array(raw, dtype=np.float32)))
    assert (np.diff(found) >= 0).all()
    apart = np.diff(np.sort(np.array(raw, dtype=np.float64))) > 1e-3
    assert (np.diff(found)[apart] > 0).all()
    assert (found >= 0).all() and (found <= 1).all()


def test_infinity_is_an_end_and_the_center_the_middle() -> None:
    assert ScoreMap(2.0, 3.0)([-np.inf, 2.0, np.inf]).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.fit
def test_a_fitted_map_puts_few_items_over_a_half_and_the_best_near_the_top() -> None:
    dataset = build_dataset()
    model = ItemKnn().fit(dataset, RuntimeOptions())
    mapped = fit_score_map(model, dataset.histories())(model.score(dataset.histories()))
    assert (mapped > 0.5).mean() == pytest.approx(0.05, abs=0.01)
    assert np.median(mapped.max(axis=1)) == pytest.approx(0.9, abs=0.01)


@pytest.mark.fit
def test_a_model_that_tells_no_items_apart_still_gets_a_map() -> None:
    dataset = build_dataset()
    model = Popularity().fit(dataset, RuntimeOptions())
    model.values = np.ones_like(model.values)
    assert fit_score_map(model, dataset.histories())([1.0, 2.0]).tolist() == [0.5, 0.75]


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    ScoreMap(1.5, 0.25).save(tmp_path)
    assert ScoreMap.load(tmp_path) == ScoreMap(1.5, 0.25)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_map_that_would_lose_the_order_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="positive scale"):
        ScoreMap(0.0, scale)
