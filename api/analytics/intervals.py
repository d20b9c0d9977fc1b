"""95 % intervals of the share of answers that were followed, and of the difference of two such shares.

Answers of one user resemble each other, so they say less than as many answers of different users. The share's variance
is that of a ratio of sums over users (Cochran, Sampling Techniques, 1977, section 6.3), and it gives the number of
independent answers that would say as much. With that number the interval is Wilson's (1927), which also holds for small
numbers and shares near 0; the interval of a difference is made of two of them (Newcombe, 1998, method 10).
"""

from dataclasses import dataclass
from math import sqrt

QUANTILE = 1.959964
"""Of the normal distribution, for 95 %."""


@dataclass(frozen=True, slots=True)
class FollowedSums:
    """Sums over users of the answers that each was shown and followed, and of their squares and products."""

    users: int
    shown: int
    followed: int
    shown_squared: int
    followed_squared: int
    product: int


@dataclass(frozen=True, slots=True)
class RateInterval:
    """A share or a difference of shares, and its 95 % interval."""

    value: float
    low: float
    high: float


def followed_rate(sums: FollowedSums) -> RateInterval | None:
    """The share of answers that were followed, in [0, 1]; None where nothing was shown."""
    if sums.shown == 0:
        return None
    rate, n = sums.followed / sums.shown, _independent_answers(sums)
    spread = QUANTILE * sqrt(rate * (1 - rate) / n + QUANTILE**2 / (4 * n**2))
    centre, scale = rate + QUANTILE**2 / (2 * n), 1 + QUANTILE**2 / n
    # At 0 and 1 a bound is the share itself, but for rounding.
    return RateInterval(
        rate, min(rate, max(0.0, (centre - spread) / scale)), max(rate, min(1.0, (centre + spread) / scale))
    )


def rate_difference(one: RateInterval, other: RateInterval) -> RateInterval:
    """How much larger the first share is than the second, in [-1, 1]."""
    value = one.value - other.value
    low = value - sqrt((one.value - one.low) ** 2 + (other.high - other.value) ** 2)
    high = value + sqrt((one.high - one.value) ** 2 + (other.value - other.low) ** 2)
    return RateInterval(value, low, high)


def _independent_answers(sums: FollowedSums) -> float:
    """How many independent answers would say as much: at least 1, at most as many as were shown.

    Where nothing or everything was followed nothing is known of how alike a user's answers are, and a user counts as
    one answer.
    """
    if sums.users < 2 or sums.followed in (0, sums.shown):
        return float(sums.users)
    rate = sums.followed / sums.shown
    squares = sums.followed_squared - 2 * rate * sums.product + rate**2 * sums.shown_squared
    variance = sums.users / (sums.users - 1) * max(0.0, squares) / sums.shown**2
    if variance <= 0:
        return float(sums.shown)
    return max(1.0, min(sums.shown, rate * (1 - rate) / variance))
