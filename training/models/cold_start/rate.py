"""What to expect of items that nobody has chosen yet, learned from what became of such items earlier."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from feature_store import columns as c
from training.data.dataset import Dataset
from training.models.content_based.fields import Field, days, flatten, number

AGES = (0.0, 30.0, 90.0, 365.0, 730.0, 1460.0)
"""Days between an item's date and a moment, that part young items from old ones."""
MOMENTS = 2
"""Earlier moments that are looked at: what was new at the start of a log says little about what is new now."""
RIDGE = 5.0
"""On the logarithm of what a range of ages changes: about so many events are needed to believe it."""
ROUNDS = 25
_YEARS = (1800, 2200)

Doubles = npt.NDArray[np.float64]
Dated = Literal["date", "year"]


class Arrivals(BaseModel):
    """Events that an item without any gets within `horizon_days`: a rate for all, times what its dates change.

    At earlier moments of the log some items had no event either. How many events they got in the days after is fitted
    by a Poisson regression with a ridge on the ages of the items by each of their dates (a release, a listing, a year):
    films of last month are found, films of last decade that nobody has rated yet are not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizon_days: float
    moment: float  # days since 1970 that ages are counted to: the newest event of the log
    rate: float
    dated: dict[str, Dated]  # path -> how it is read
    effects: list[float]  # [len(dated) * (len(AGES) + 1)] on the logarithm of the rate

    @classmethod
    def learn(cls, dataset: Dataset, fields: Sequence[Field], horizon_days: float) -> "Arrivals":
        """From a log that is not empty. fields: of the metadata. A short log shortens the horizon."""
        events, metadata = dataset.interactions, dataset.items.metadata
        dated = {field.path: kind for field in fields if (kind := _dated(field, metadata)) is not None}
        dates = _dates(dated, metadata)
        start, end = int(events.timestamps.min()), int(events.timestamps.max())
        horizon = max(1, min(int(horizon_days * c.MICROS_PER_DAY), (end - start) // (2 * MOMENTS)))
        ages, chosen = [], []
        for moment in (end - place * horizon for place in range(1, MOMENTS + 1)):
            newcomers = np.bincount(events.items[events.timestamps <= moment], minlength=dataset.n_items) == 0
            after = (events.timestamps > moment) & (events.timestamps <= moment + horizon)
            mass = np.bincount(events.items[after], events.weights[after], dataset.n_items)
            ages.append(_ages(dates, moment / c.MICROS_PER_DAY)[newcomers])
            chosen.append(mass[newcomers])
        rate, effects = _poisson(np.vstack(ages), np.concatenate(chosen))
        return cls(
            horizon_days=horizon / c.MICROS_PER_DAY,
            moment=end / c.MICROS_PER_DAY,
            rate=rate,
            dated=dated,
            effects=effects.tolist(),
        )

    def expected(self, metadata: Sequence[dict[str, Any]]) -> Doubles:
        """Events of items within the horizon, float64 [n]; ages are those at the newest event of the log."""
        ages = _ages(_dates(self.dated, metadata), self.moment)
        return self.rate * np.exp(ages @ np.array(self.effects))


def _dated(field: Field, metadata: Sequence[dict[str, Any]]) -> Dated | None:
    """How a field says when an item is from; None where it does not."""
    if field.kind == "date":
        return "date"
    if field.kind != "numeric":
        return None
    values = [found for item in metadata for value in flatten(item).get(field.path, []) if (found := number(value))]
    is_year = all(value.is_integer() and _YEARS[0] <= value <= _YEARS[1] for value in values)
    return "year" if values and is_year else None


def _dates(dated: dict[str, Dated], metadata: Sequence[dict[str, Any]]) -> Doubles:
    """Days since 1970, float64 [n, n_dated], NaN where there is none; a year is its middle."""
    found = np.full((len(metadata), len(dated)), np.nan)
    for row, item in enumerate(metadata):
        flat = flatten(item)
        for column, (path, kind) in enumerate(dated.items()):
            for value in flat.get(path, [])[:1]:
                read = days(value) if kind == "date" else number(value)
                if read is not None:
                    found[row, column] = read if kind == "date" else (read - 1969.5) * 365.25
    return found


def _ages(dates: Doubles, moment: float) -> Doubles:
    """Which range of AGES each date falls into, one-hot, float64 [n, n_dated * (len(AGES) + 1)]; none where NaN."""
    n, width = len(dates), len(AGES) + 1
    ages = np.zeros((n, dates.shape[1], width))
    rows, columns = np.nonzero(~np.isnan(dates))
    ages[rows, columns, np.searchsorted(AGES, moment - dates[rows, columns], side="right")] = 1
    return ages.reshape(n, dates.shape[1] * width)


def _poisson(features: Doubles, counts: Doubles) -> tuple[float, Doubles]:
    """The mean count, and effects on the logarithm of it by Newton's method; none where nothing was counted."""
    effects = np.zeros(features.shape[1])
    rate = float(counts.mean()) if len(counts) else 0.0
    for _ in range(ROUNDS if rate else 0):
        expected = rate * np.exp(np.clip(features @ effects, -8, 8))
        curvature = features.T @ (expected[:, None] * features) + RIDGE * np.eye(len(effects))
        effects += np.linalg.solve(curvature, features.T @ (counts - expected) - RIDGE * effects)
    return rate, effects
