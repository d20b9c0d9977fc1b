"""The map from a model's raw scores to the [0, 1] of a response: fixed per model, strictly monotone."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from feature_store.online import Histories
from training.models.contract import Recommender

FILE = "score_map.json"
TOP_SCORE = 0.9
"""The mapped score of the best item of a typical list."""
SCORE_MAP_USERS = 512
"""The largest number of users whose scores a map is fitted on."""


@dataclass(frozen=True)
class ScoreMap:
    """score = (1 + z / (1 + |z|)) / 2 with z = (raw - center) / scale.

    Raises ValueError for a center that is not finite, or a scale that is not finite and positive.

    Softsign rather than the logistic function: it approaches 0 and 1 so slowly that raw scores far from the center
    still map to different numbers.
    """

    center: float
    scale: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center) and np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"a score map needs a finite center and a positive scale, not {self}")

    def __call__(self, raw: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Raw scores of any shape to float64 of the same shape in [0, 1]; -inf maps to 0."""
        z = (np.asarray(raw, dtype=np.float64) - self.center) / self.scale
        with np.errstate(invalid="ignore"):
            soft = np.where(np.isinf(z), np.sign(z), z / (1 + np.abs(z)))
        return (1 + soft) / 2

    def save(self, folder: Path) -> None:
        """Write the map as JSON into the folder."""
        (folder / FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The map that `save` wrote."""
        return cls(**json.loads((folder / FILE).read_text()))


def fit_score_map(model: Recommender, histories: Histories) -> ScoreMap:
    """The map that puts 95 % of all scores under one half and the best score of the median user at TOP_SCORE.

    histories: of a sample of real users, SCORE_MAP_USERS at most.
    """
    scores = model.score(histories).astype(np.float64)
    center = float(np.quantile(scores, 0.95))
    reach = float(np.median(scores.max(axis=1))) - center
    soft = 2 * TOP_SCORE - 1
    scale = reach * (1 - soft) / soft
    # A model that scores all items alike gives no spread to learn from; any positive scale keeps the order.
    return ScoreMap(center, scale if scale > np.finfo(np.float32).tiny else 1.0)
