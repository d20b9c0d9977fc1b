"""Cold-start rate: how many events to expect of an item without any, learned from items that were cold earlier."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from feature_store import columns as c
from training.data.dataset import Dataset
from training.models.cold_start.items import cold_items
from training.models.content_based.fields import MetadataField, days, flatten, number
from training.models.contract import Doubles

AGES = (0.0, 30.0, 90.0, 365.0, 730.0, 1460.0)
"""Bounds between ranges of an item's age, in days: reference time less the item's date."""
REFERENCE_TIMES = 2
"""Number of earlier times to learn from, all of them late: items that were cold early in a log are unlike today's."""
RIDGE = 5.0
"""Penalty on the age effects, so that an effect counts only once about this many events support it."""
ROUNDS = 25
_YEARS = (1800, 2200)

DateKind = Literal["date", "year"]


class ColdStartRate(BaseModel):
    """Events that a cold item gets within `horizon_days`: a common rate times the effects of its ages.

    At earlier times of the log other items were cold. A Poisson regression with a ridge fits the events they got in
    the following days, on the ages of the items by each of their dates (a release, a listing, a year). So a film of
    last month gets a high rate, and a film of the last decade that nobody has rated yet gets a low one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizon_days: float
    reference_day: float = Field(validation_alias=AliasChoices("reference_day", "moment"))
    """Days since 1970 at which ages are taken: the newest event of the log."""
    rate: float
    date_fields: dict[str, DateKind] = Field(validation_alias=AliasChoices("date_fields", "dated"))
    """Path of the metadata -> how its values are read."""
    effects: list[float]
    """[len(date_fields) * (len(AGES) + 1)] on the logarithm of the rate."""

    @classmethod
    def fit(cls, dataset: Dataset, fields: Sequence[MetadataField], horizon_days: float) -> "ColdStartRate":
        """Learn from a data set with events.

        Args:
            dataset: at least one event.
            fields: of the metadata; those that hold dates or years are used.
            horizon_days: how far ahead to expect events; a short log shortens it.
        """
        events, metadata = dataset.interactions, dataset.items.metadata
        date_fields = {field.path: kind for field in fields if (kind := _date_kind(field, metadata)) is not None}
        dates = _dates(date_fields, metadata)
        start, end = int(events.timestamps.min()), int(events.timestamps.max())
        horizon = max(1, min(int(horizon_days * c.MICROS_PER_DAY), (end - start) // (2 * REFERENCE_TIMES)))
        ages, counts = [], []
        for time in (end - place * horizon for place in range(1, REFERENCE_TIMES + 1)):
            cold = cold_items(events.items[events.timestamps <= time], dataset.n_items)
            after = (events.timestamps > time) & (events.timestamps <= time + horizon)
            mass = np.bincount(events.items[after], events.weights[after], dataset.n_items)
            ages.append(_ages(dates, time / c.MICROS_PER_DAY)[cold])
            counts.append(mass[cold])
        rate, effects = _poisson(np.vstack(ages), np.concatenate(counts))
        return cls(
            horizon_days=horizon / c.MICROS_PER_DAY,
            reference_day=end / c.MICROS_PER_DAY,
            rate=rate,
            date_fields=date_fields,
            effects=effects.tolist(),
        )

    def expected(self, metadata: Sequence[dict[str, Any]]) -> Doubles:
        """Events to expect of cold items within the horizon, float64 [n], at their ages on the reference day."""
        ages = _ages(_dates(self.date_fields, metadata), self.reference_day)
        return self.rate * np.exp(ages @ np.array(self.effects))


def _date_kind(field: MetadataField, metadata: Sequence[dict[str, Any]]) -> DateKind | None:
    """How a field dates an item; None where it does not."""
    if field.kind == "date":
        return "date"
    if field.kind != "numeric":
        return None
    values = [found for item in metadata for value in flatten(item).get(field.path, []) if (found := number(value))]
    is_year = all(value.is_integer() and _YEARS[0] <= value <= _YEARS[1] for value in values)
    return "year" if values and is_year else None


def _dates(date_fields: dict[str, DateKind], metadata: Sequence[dict[str, Any]]) -> Doubles:
    """Days since 1970, float64 [n, n_date_fields], NaN where an item has none; a year stands for its middle."""
    found = np.full((len(metadata), len(date_fields)), np.nan)
    for row, item in enumerate(metadata):
        flat = flatten(item)
        for column, (path, kind) in enumerate(date_fields.items()):
            for value in flat.get(path, [])[:1]:
                read = days(value) if kind == "date" else number(value)
                if read is not None:
                    found[row, column] = read if kind == "date" else (read - 1969.5) * 365.25
    return found


def _ages(dates: Doubles, day: float) -> Doubles:
    """The range of AGES of each date on a day, one-hot, float64 [n, n_dates * (len(AGES) + 1)]; zeros where NaN."""
    n, width = len(dates), len(AGES) + 1
    ages = np.zeros((n, dates.shape[1], width))
    rows, columns = np.nonzero(~np.isnan(dates))
    ages[rows, columns, np.searchsorted(AGES, day - dates[rows, columns], side="right")] = 1
    return ages.reshape(n, dates.shape[1] * width)


def _poisson(features: Doubles, counts: Doubles) -> tuple[float, Doubles]:
    """The mean count, and effects on its logarithm by Newton's method; zero effects where all counts are zero."""
    effects = np.zeros(features.shape[1])
    rate = float(counts.mean()) if len(counts) else 0.0
    for _ in range(ROUNDS if rate else 0):
        expected = rate * np.exp(np.clip(features @ effects, -8, 8))
        curvature = features.T @ (expected[:, None] * features) + RIDGE * np.eye(len(effects))
        effects += np.linalg.solve(curvature, features.T @ (counts - expected) - RIDGE * effects)
    return rate, effects
