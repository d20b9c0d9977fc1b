"""Whether a day differs from the tenant's own past by more than the days of that past differ from each other.

A fixed bound, such as the customary PSI of 0.25, is wrong in both directions: chance alone exceeds it where a tenant
has few events, and a shift of a fifth of all events may stay below it (its least is 0.16). So each measure of a day is
compared with the same measure of the days before it. A day has drifted where its value exceeds both a floor, below
which a difference is too small to matter, and a limit, beyond which chance takes few of many quiet days.

1. The reference of a day is the same weekday of the weeks before, so that no weekly pattern is taken for drift.
2. Distributions are compared by the population stability index, `sum((p - q) * ln(p / q))` over the bins, the symmetric
   divergence of Jeffreys (1946); Siddiqi, Credit Risk Scorecards, 2006, made the name popular. Shares are smoothed by
   half an event per bin, and 1 / n + 1 / m of the two samples is its unit: `psi / unit` of two samples of one
   distribution is about chi-squared with one degree of freedom less than there are bins (Yurdakul and Naranjo, 2020,
   Statistical properties of the population stability index).
3. Cube roots of chi-squared values are about normal (Wilson and Hilferty, 1931), shares by their arcsine (Anscombe,
   1948) and volumes by their logarithm. On that scale the limit is `centre + factor * spread` of up to 56 days before:
   the median and the winsorised standard deviation, which is never taken to be below that of independent events.
4. The factor is a quantile of Student's t, whose degrees of freedom count the days that centre and spread come from, at
   the level that spends the measure's part of the false alarms (Bonferroni): `FALSE_ALARMS`.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]

FALSE_ALARMS = {
    "popularity": 0.01,
    "activity": 0.01,
    "types": 0.01,
    "categories": 0.01,
    "norms": 0.01,
    "unknown_items": 0.01,
    "followed": 0.01,
    "volume": 0.02,
}
"""Expected alarms of each measure in 100 days without drift: 0.09 in all, so that two come once in 260 times.

The volume has the largest part, since a fall by two fifths is only four or five standard deviations of many tenants."""

REFERENCE_WEEKS = 4
"""Weeks before a day whose same weekday its distributions are compared with."""
VOLUME_WEEKS = 8
"""Weeks before a day whose same weekday its volume is compared with. The trend makes up for their age."""
LEAST_WEEKS = 2
"""Of these, so many must have events."""
PAST_DAYS = 56
"""Days before a day whose values say what is usual."""
LEAST_PAST_DAYS = 14
"""Of these, so many must have a value, or there is no verdict. The first one is on a tenant's 29th day."""
LEAST_EVENTS = 20
"""A sample of fewer events (users, for activity) is not judged. Limits for few events are high, but these are noise."""
TREND_DAYS = 28
"""Days whose median ratio to the weeks before is the trend of the volume."""
OUTLIER = 3.0
"""Robust standard deviations from the centre at which a past day is capped, so that a drifted one makes none blind."""
SURE = 2.58
"""Standard deviations that a normal variable keeps within in 99 of 100 cases: the noise that is granted a fall."""


@dataclass(frozen=True)
class DailyMeasure:
    """A measure of every day beside its limit.

    Arrays are of the same days, oldest first. A value is NaN where the day has too few events, or no reference. A limit
    is NaN where there is no verdict.
    """

    name: str
    values: Floats  # [n_days]
    limits: Floats  # [n_days]
    is_upper: bool  # whether values above the limit are drift; otherwise those below it
    events: Counts  # [n_days] what the values are computed from
    detail: str = ""  # what of several the measure is of, such as a field of the metadata

    @property
    def drifted(self) -> npt.NDArray[np.bool_]:
        """Whether each day has drifted, bool [n_days]. A day without a verdict has not."""
        with np.errstate(invalid="ignore"):
            return self.values > self.limits if self.is_upper else self.values < self.limits


def stability(
    name: str, current: Counts, reference: Counts, floor: float, comparisons: int = 1, detail: str = ""
) -> DailyMeasure:
    """The population stability index of each day against its reference.

    Args:
        name: of the measure, in FALSE_ALARMS.
        current: [n_days, n_bins] events of each day by bin.
        reference: [n_days, n_bins] events that each day is compared with, such as `same_weekdays`.
        floor: a smaller index is no drift, however sure it is.
        comparisons: distributions that this measure consists of, whose false alarms are shared.
        detail: which of these distributions it is.
    """
    n, m = current.sum(axis=1), reference.sum(axis=1)
    enough = (n >= LEAST_EVENTS) & (m >= LEAST_EVENTS)
    psi = np.where(enough, population_stability_index(current, reference), np.nan)
    unit = 1 / np.maximum(n, 1) + 1 / np.maximum(m, 1)
    freedom = np.maximum(((current + reference) > 0).sum(axis=1) - 1, 1)
    # Wilson and Hilferty: the cube root of a chi-squared value with k degrees of freedom.
    centre = np.cbrt(freedom) * (1 - 2 / (9 * freedom))
    spread = np.cbrt(freedom) * np.sqrt(2 / (9 * freedom))
    level = FALSE_ALARMS[name] / 100 / comparisons
    # Chance makes an index in proportion to its unit, moods of a day make one that does not depend on it. Which of the
    # two a tenant has is not known, so a day must exceed the limit by either.
    by_chance = unit * _limit(np.cbrt(psi / unit), centre, spread, level) ** 3
    by_mood = _limit(np.cbrt(psi), np.zeros_like(psi), np.zeros_like(psi), level) ** 3
    return DailyMeasure(name, psi, np.maximum(np.maximum(by_chance, by_mood), floor), True, n, detail)


def population_stability_index(current: Counts, reference: Counts) -> Floats:
    """`sum((p - q) * ln(p / q))` of each row, with half an event added to every bin that either has events in.

    current, reference: [n, n_bins]; returns float64 [n], 0 where both are empty.
    """
    used = (current + reference) > 0
    p, q = (np.where(used, counts + 0.5, 0.0) for counts in (current, reference))
    p, q = (each / np.maximum(each.sum(axis=1, keepdims=True), 1e-12) for each in (p, q))
    ratio = np.divide(p, q, out=np.ones_like(p), where=used)
    found: Floats = ((p - q) * np.log(ratio)).sum(axis=1)
    return found


def same_weekdays(counts: Counts) -> Floats:
    """The sum of the same weekday of the `REFERENCE_WEEKS` before, float64 like `counts`.

    counts: [n_days] or [n_days, n_bins], one row per day of the calendar. Rows are 0 where fewer than `LEAST_WEEKS` of
    these days have events.
    """
    total, weeks = np.zeros(counts.shape), np.zeros(len(counts), dtype=np.int64)
    has_events = counts.reshape(len(counts), -1).sum(axis=1) > 0
    for days in range(7, 7 * REFERENCE_WEEKS + 1, 7):
        total[days:] += counts[:-days]
        weeks[days:] += has_events[:-days]
    total[weeks < LEAST_WEEKS] = 0
    return total


def volume(counts: Counts, drop: float) -> DailyMeasure:
    """Each day's events relative to those expected by the same weekday of the weeks before, and by the trend.

    A day has drifted where it has fewer than chance explains, and where a fall by `drop` cannot be ruled out: were the
    bound `1 - drop` itself, a fall of just that size would be missed every other time.

    Args:
        counts: [n_days] events of every day of the calendar.
        drop: the share of the expected events that may not be missing, in (0, 1).
    """
    logs = np.log(counts + 0.5)
    weeks = np.full((VOLUME_WEEKS, len(counts)), np.nan)
    started = np.cumsum(counts) > 0  # the days before a tenant's first are no reference
    for week in range(1, VOLUME_WEEKS + 1):
        days = 7 * week
        weeks[week - 1, days:] = np.where(started, logs, np.nan)[:-days]
    known = (~np.isnan(weeks)).sum(axis=0) >= LEAST_WEEKS
    ratio = np.where(known, logs - _nanmedian(weeks, axis=0), np.nan)
    trend = _nanmedian(_before(ratio, TREND_DAYS), axis=1)
    surprise = ratio - np.where(np.isnan(trend), 0.0, trend)
    expected = np.exp(logs - surprise)
    enough = expected >= LEAST_EVENTS
    level, noise = FALSE_ALARMS["volume"] / 100, np.sqrt(1 + 1 / VOLUME_WEEKS)
    # Signs are turned, so that a fall is large. Moods of a day are factors, whose logarithms do not depend on the
    # volume; the noise of chance falls with its root. A day must fall below the limits by both, and below that of
    # independent events on the scale of roots, because logarithms of few events are skewed (Anscombe, 1948).
    falls, unit = np.where(enough, -surprise, np.nan), np.sqrt(np.maximum(expected, 1))
    by_mood, spread = _limit_and_spread(falls, np.zeros_like(falls), noise / unit, level)
    by_chance = _limit(falls * unit, np.zeros_like(falls), np.full_like(falls, noise), level) / unit
    root = np.sqrt(expected + 0.375)
    independent = (np.maximum(root - _factors(level)[-1] * noise / 2, 0.0) ** 2 - 0.375) / expected
    granted = (1 - drop) * np.exp(SURE * spread)
    limits = np.minimum.reduce([np.exp(-by_mood), np.exp(-by_chance), independent, granted])
    return DailyMeasure("volume", np.where(enough, np.exp(surprise), np.nan), limits, False, counts)


def share(name: str, part: Counts, whole: Counts, floor: float = 0.0) -> DailyMeasure:
    """The share `part / whole` of each day, which may rise above neither `floor` nor what is usual. Both: [n_days]."""
    angle, noise = _angles(part, whole)
    limits = np.sin(np.clip(_limit(angle, np.zeros_like(noise), noise, FALSE_ALARMS[name] / 100), 0, np.pi / 2)) ** 2
    return DailyMeasure(name, _shares(part, whole), np.maximum(limits, floor), True, whole)


def falling_share(name: str, part: Counts, whole: Counts, drop: float) -> DailyMeasure:
    """The share `part / whole` of each day, which may not fall by `drop` of its usual value. Both: [n_days].

    Drift is what exceeds chance and where a fall by `drop` cannot be ruled out, as in `volume`.
    """
    angle, noise = _angles(part, whole)
    beyond, spread = _limit_and_spread(-angle, np.full_like(noise, -np.pi / 2), noise, FALSE_ALARMS[name] / 100)
    usual = _nanmedian(_before(_shares(part, whole), PAST_DAYS), axis=1)
    granted = np.arcsin(np.sqrt(np.clip((1 - drop) * usual, 0, 1))) + SURE * spread
    limits = np.sin(np.clip(np.minimum(-beyond, granted), 0, np.pi / 2)) ** 2
    return DailyMeasure(name, _shares(part, whole), limits, False, whole)


def _shares(part: Counts, whole: Counts) -> Floats:
    return np.where(whole >= LEAST_EVENTS, part / np.maximum(whole, 1), np.nan)


def _angles(part: Counts, whole: Counts) -> tuple[Floats, Floats]:
    """Arcsines of the shares' roots (NaN for few events), whose variance is 1 / (4 n), and their standard deviations.

    3/8 and 3/4 events are added (Anscombe, 1948), which makes the variance true for rare events too.
    """
    angle = np.arcsin(np.sqrt((part + 0.375) / (np.maximum(whole, part) + 0.75)))
    return np.where(whole >= LEAST_EVENTS, angle, np.nan), 0.5 / np.sqrt(np.maximum(whole, 1))


def _limit(values: Floats, least_centre: Floats, least_spread: Floats, level: float) -> Floats:
    return _limit_and_spread(values, least_centre, least_spread, level)[0]


def _limit_and_spread(
    values: Floats, least_centre: Floats, least_spread: Floats, level: float
) -> tuple[Floats, Floats]:
    """What values of quiet days exceed with probability `level`, and the spread of the days before each.

    Args:
        values: [n_days], about normal on quiet days, NaN where there is none.
        least_centre, least_spread: [n_days], what both are where events are independent.

    Returns:
        Both float64 [n_days]; the limits are NaN where fewer than LEAST_PAST_DAYS days before have a value.
    """
    past = _before(values, PAST_DAYS)
    days = (~np.isnan(past)).sum(axis=1)
    centre = _nanmedian(past, axis=1)
    deviations = past - centre[:, None]
    robust = _nanmedian(np.abs(deviations), axis=1) / stats.norm.ppf(0.75)
    bound = OUTLIER * np.fmax(robust, least_spread)[:, None]
    squares = np.nan_to_num(np.clip(deviations, -bound, bound)) ** 2
    spread = np.fmax(np.sqrt(squares.sum(axis=1) / np.maximum(days - 1, 1)), least_spread)
    limits = np.fmax(centre, least_centre) + _factors(level)[days] * spread
    return np.where(days >= LEAST_PAST_DAYS, limits, np.nan), spread


@lru_cache(maxsize=16)
def _factors(level: float) -> Floats:
    """Standard deviations from the centre to the limit, by the number of past days, float64 [PAST_DAYS + 1].

    A winsorised estimate of the spread is worth about four fifths of its days.
    """
    days = np.arange(PAST_DAYS + 1)
    factors: Floats = stats.t.isf(level, np.maximum(0.8 * days, 1)) * np.sqrt(1 + 1 / np.maximum(days, 1))
    return factors


def _before(values: Floats, days: int) -> Floats:
    """The `days` values before each day, NaN before the first one, float64 [n_days, days]."""
    padded = np.concatenate((np.full(days, np.nan), values))
    return np.lib.stride_tricks.sliding_window_view(padded, days)[: len(values)]


def _nanmedian(values: Floats, axis: int) -> Floats:
    # Not np.nanmedian, which warns of days without any value before them.
    found: Floats = np.ma.median(np.ma.masked_invalid(values), axis=axis).filled(np.nan)  # type: ignore[no-untyped-call]
    return found
