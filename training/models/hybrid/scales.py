"""Scales that make the scores of different base models comparable."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from feature_store.online import Histories
from training.models.contract import FloatMatrix, Recommender
from training.models.linear import LinearRecommender
from training.models.profiles import build_profiles


@dataclass(frozen=True)
class Scale:
    """The mean of scores, and their standard deviation over the items: `spread` * n ** `growth` for n history items."""

    center: float  # mean over histories and items
    spread: float
    growth: float


def history_sizes(histories: Histories, n_items: int) -> npt.NDArray[np.float32]:
    """Distinct items of each history, at least 1, float32 [batch]."""
    return build_profiles(histories, n_items).sizes


def measure_growth(base_models: Mapping[str, Recommender], histories: Histories) -> float:
    """How the spread of the linear base models' scores grows with the history, as an exponent in [0, 1].

    All of them share one exponent: the contribution of a history item to the ensemble's score is exact only if nothing
    but a common factor depends on the size of the history. 0 where no base model is linear.
    """
    slopes = [_fit_growth(model, histories) for model in base_models.values() if isinstance(model, LinearRecommender)]
    return float(np.clip(np.mean(slopes), 0, 1)) if slopes else 0.0


def measure_scale(model: Recommender, histories: Histories, growth: float) -> Scale:
    """The scale of one base model. growth: the common exponent, used as it is for a linear model."""
    own = growth if isinstance(model, LinearRecommender) else float(np.clip(_fit_growth(model, histories), 0, 1))
    scores = model.score(histories)
    spreads = _spreads(scores)
    sizes = history_sizes(histories, model.n_items)
    known = spreads > 0
    if not known.any():  # every history scores all items alike
        return Scale(float(scores.mean()), 1.0, own)
    spread = np.exp(np.mean(np.log(spreads[known]) - own * np.log(sizes[known])))
    return Scale(float(scores.mean()), float(spread), own)


def raw_scales(scales: Mapping[str, Scale], family: str) -> tuple[dict[str, Scale], float]:
    """The scales in the unit of one model's raw scores, which are then neither moved nor multiplied, and that unit.

    A product with any number but 1 could round two scores to one, and so change their order.
    """
    unit = scales[family].spread
    found = {name: replace(scale, spread=scale.spread / unit) for name, scale in scales.items()}
    return {**found, family: Scale(0.0, 1.0, scales[family].growth)}, unit


def _fit_growth(model: Recommender, histories: Histories) -> float:
    spreads, sizes = _spreads(model.score(histories)), history_sizes(histories, model.n_items)
    known = spreads > 0
    if len(np.unique(sizes[known])) < 2:
        return 0.0
    return float(np.polyfit(np.log(sizes[known]), np.log(spreads[known]), 1)[0])


def _spreads(scores: FloatMatrix) -> npt.NDArray[np.float64]:
    return scores.std(axis=1, dtype=np.float64)
