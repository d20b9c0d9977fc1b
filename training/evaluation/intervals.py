"""95 % intervals by the bootstrap over users (Efron and Tibshirani, 1993)."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.float64]
QUANTILES = (0.025, 0.975)
_CELLS = 4_000_000
"""Numbers held at once, which bounds the memory of the resamples."""


class Estimate(BaseModel):
    """A figure with its 95 % interval; only reports of earlier versions hold figures without one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    low: float | None = None
    high: float | None = None


def mean_estimates(columns: dict[str, Floats], n_resamples: int, seed: int) -> dict[str, Estimate]:
    """The mean of each metric over the users who have it. A metric that no user has is left out.

    columns: float64 [n_users] each, NaN for a user without that metric.
    """
    columns = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    if not columns:
        return {}
    means = bootstrap_means(np.column_stack(list(columns.values())), n_resamples, seed)
    low, high = np.nanquantile(means, QUANTILES, axis=0)
    return {
        name: Estimate(mean=float(np.nanmean(column)), low=float(low[i]), high=float(high[i]))
        for i, (name, column) in enumerate(columns.items())
    }


def paired_difference(one: Floats, other: Floats, n_resamples: int = 2_000, seed: int = 0) -> Estimate:
    """The mean of the first model's metric minus the second's, on users that both were evaluated on.

    Each resample of users is used for both models, so the difficulty of a user cancels out. An interval above 0 says
    that the first model is better, an interval below 0 that it is worse, and one that contains 0 decides nothing.

    Args:
        one, other: float64 [n_users], a metric of the same users in the same order, NaN where a user has none.

    Raises:
        ValueError: different numbers of users, or no user has the metric under both models.
    """
    (found,) = paired_differences([(one, other)], n_resamples, seed)
    return found


def paired_differences(
    pairs: Sequence[tuple[Floats, Floats]], n_resamples: int = 2_000, seed: int = 0
) -> list[Estimate]:
    """`paired_difference` of each pair, with the same resamples of users for all pairs."""
    columns = {}
    for place, (one, other) in enumerate(pairs):
        if one.shape != other.shape:
            raise ValueError(f"a paired difference is of the same users, not of {len(one)} and {len(other)}")
        columns[str(place)] = one - other
    found = mean_estimates(columns, n_resamples, seed)
    if len(found) < len(pairs):
        raise ValueError("no user has the metric under both models")
    return [found[place] for place in columns]


def aggregate_estimates(
    listed: sp.csr_array, statistics: Mapping[str, Callable[[Floats, int], Floats]], n_resamples: int, seed: int
) -> dict[str, Estimate]:
    """Metrics of all lists together, such as aggregate diversity, which are not means over users.

    A resample holds only about 63 % of the distinct users, and fewer users list fewer items, so every resample is
    biased by about the same amount. The quantiles are therefore shifted by the mean difference between the figure and
    the resamples, and clipped to [0, 1].

    Args:
        listed: float64 [n_users, n_items], 1 where an item is in a user's list.
        statistics: name to a function of how often items are listed, [n_listed, n_resamples], and the size of the
            catalogue. It returns the metric of each resample, [n_resamples].
    """
    n_users, n_items = listed.shape
    by_item = sp.csr_array(listed[:, np.unique(listed.indices)].T)  # [n_listed, n_users]
    if not by_item.nnz:
        return {}
    drawn: dict[str, list[Floats]] = {name: [] for name in statistics}
    for weights in _draws(n_users, n_resamples, seed, max(by_item.shape)):
        counts = by_item @ weights.T
        # A resample may hold only users with empty lists, for which no metric is defined.
        counts = counts[:, counts.any(axis=0)]
        for name, statistic in statistics.items():
            drawn[name].append(statistic(counts, n_items))
    once = by_item.sum(axis=1)[:, None]
    found = {}
    for name, statistic in statistics.items():
        figure, samples = float(statistic(once, n_items)[0]), np.concatenate(drawn[name])
        low, high = np.clip(np.quantile(samples, QUANTILES) + (figure - samples.mean()), 0, 1)
        found[name] = Estimate(mean=figure, low=min(float(low), figure), high=max(float(high), figure))
    return found


def bootstrap_means(values: Floats, n_resamples: int, seed: int) -> Floats:
    """Means of the columns over users drawn with replacement, float64 [n_resamples, n_metrics].

    values: float64 [n_users, n_metrics]; a NaN is left out of its column's mean.
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore"):
        means = [(draws @ filled) / (draws @ known) for draws in _draws(len(values), n_resamples, seed, len(values))]
    return np.concatenate(means)


def _draws(n_users: int, n_resamples: int, seed: int, width: int) -> Iterator[Floats]:
    """How often each user is drawn, float64 [<= n_resamples, n_users] a block. width: columns that bound its rows."""
    rng = np.random.default_rng(seed)
    size = max(1, _CELLS // max(width, 1))
    for start in range(0, n_resamples, size):
        rows = min(size, n_resamples - start)
        yield rng.multinomial(n_users, np.full(n_users, 1 / n_users), size=rows).astype(np.float64)
