"""The metrics of each evaluated user, stored so that two models can be compared in pairs after their fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from training.data.splits import Split
from training.evaluation.intervals import Floats
from training.evaluation.metrics import per_user_metrics
from training.evaluation.rankings import HoldoutRankings
from training.evaluation.segments import segments

_WINDOW = "split_hash"


@dataclass(frozen=True)
class UserValues:
    """Row i belongs to query i of the test window. No user is named."""

    split_hash: str
    by_segment: Mapping[str, Mapping[str, Floats]]
    """Segment to metric to float64 [n_queries], NaN for a query outside the segment or without the metric."""

    @classmethod
    def of(cls, split: Split, rankings: HoldoutRankings | None) -> Self:
        """The values of `split.test`. rankings: None where the window has no query, which leaves no segment."""
        found: dict[str, dict[str, Floats]] = {}
        if rankings is None:
            return cls(split.hash, found)
        for segment in segments(split, rankings):
            ranked = rankings.per_user if segment.ranks is rankings.ranks else per_user_metrics(segment.ranks)
            found[segment.name] = {
                # As precise as a stored value, so that equal models have a difference of exactly 0.
                name: np.where(segment.users, column, np.nan).astype(np.float32).astype(np.float64)
                for name, column in ranked.items()
            }
        return cls(split.hash, found)

    def save(self, path: Path) -> None:
        """Write a `.npz` file, in float32."""
        arrays = {
            f"{segment}/{metric}": column.astype(np.float32)
            for segment, columns in self.by_segment.items()
            for metric, column in columns.items()
        }
        np.savez_compressed(path, allow_pickle=False, **{_WINDOW: np.array(self.split_hash)}, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote. Raises FileNotFoundError where there is no such file."""
        found: dict[str, dict[str, Floats]] = {}
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                if name != _WINDOW:
                    segment, _, metric = name.partition("/")
                    found.setdefault(segment, {})[metric] = arrays[name].astype(np.float64)
            return cls(str(arrays[_WINDOW]), found)
