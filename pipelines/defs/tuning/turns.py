"""Whose search is next: a pure function of what is known of all tenants.

Each family of each tenant is searched in turn. A turn has a deadline: the last attempt plus the period between two
searches, half of it for the most active tenants. The earliest deadline is first, and a family that was never searched
is before all others. A deadline does not move while its family waits, and that of a family that was searched lies
later than before. So every waiting family is the first at some time, however active others are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

RETRY_AFTER = timedelta(hours=6)
"""A search that was stopped or failed is not due again before."""
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
LEAST_TIME_SHARE = 0.5
"""Of a search's minutes, without which it does not start."""
CHANGED_FACTOR = 2.0
"""Data have changed in kind where a size is more than so many times what it was, or less than that share of it."""
CHANGED_REPEATS = 0.15
_SIZES = ("n_events", "n_items", "n_users")
_MOST_ACTIVE = 10_000.0
"""New interactions a day from which on a tenant is not more urgent for having more."""


@dataclass(frozen=True)
class SearchCandidate:
    """A family of a tenant, and when it was searched."""

    tenant: str
    family: str
    every: timedelta  # between two searches
    minutes: float  # that a search may take
    events_per_day: float  # new interactions
    attempted_at: datetime | None = None  # the newest search, whether or not it ended by itself
    completed_at: datetime | None = None  # the newest that did
    changed: str = ""  # how the data differ in kind from those of the newest completed search; empty: they do not
    order: int = 0  # among the families of a tenant with equal deadlines

    def due(self, now: datetime) -> str:
        """Why a search is due; empty where none is."""
        if self.attempted_at is not None and now - self.attempted_at < RETRY_AFTER:
            return ""
        if self.completed_at is None:
            return "never searched to the end"
        if self.changed:
            return self.changed
        return f"last searched {self.completed_at:%Y-%m-%d}" if now - self.completed_at >= self.every else ""

    def deadline(self) -> datetime:
        """When its turn comes, in comparison with others."""
        activity = min(1.0, math.log1p(max(0.0, self.events_per_day)) / math.log1p(_MOST_ACTIVE))
        return (self.attempted_at or LONG_AGO) + self.every * (1 - activity / 2)


@dataclass(frozen=True)
class SearchTurn:
    """A search to start."""

    candidate: SearchCandidate
    minutes: float
    reason: str


def next_turns(
    candidates: Sequence[SearchCandidate], now: datetime, minutes_left: float, budget: float, slots: int
) -> list[SearchTurn]:
    """The searches to start now, at most one a tenant.

    A search starts where at least half of its minutes are left. The first in turn is never passed over for want of
    minutes: the others wait with it, so that long searches have their turn too.

    Args:
        candidates: all families of all tenants, except those of a tenant with an active search.
        now: of the due times.
        minutes_left: of the installation's budget for the last 24 hours.
        budget: the whole of it; a search that wants more gets this.
        slots: searches that may start.
    """
    due = [(each, reason) for each in candidates if (reason := each.due(now))]
    due.sort(key=lambda pair: (pair[0].deadline(), pair[0].order, pair[0].tenant, pair[0].family))
    turns: list[SearchTurn] = []
    tenants: set[str] = set()
    for candidate, reason in due:
        if candidate.tenant in tenants:
            continue
        minutes = min(candidate.minutes, budget)
        if len(turns) == slots or minutes <= 0 or minutes_left < LEAST_TIME_SHARE * minutes:
            break
        minutes = min(minutes, minutes_left)
        turns.append(SearchTurn(candidate, minutes, reason))
        tenants.add(candidate.tenant)
        minutes_left -= minutes
    return turns


def changed_in_kind(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How data differ in kind from earlier ones, by their profiles; empty where they do not.

    A profile that lacks a value, as one of an earlier version may, says nothing about it.
    """
    found = []
    for name in _SIZES:
        if name in before and name in now:
            ratio = max(1, now[name]) / max(1, before[name])
            if not 1 / CHANGED_FACTOR <= ratio <= CHANGED_FACTOR:
                found.append(f"{name.removeprefix('n_')} went from {before[name]:,} to {now[name]:,}")
    repeats = "repeat_share"
    if repeats in before and repeats in now and abs(now[repeats] - before[repeats]) > CHANGED_REPEATS:
        found.append(f"repeated interactions went from {before[repeats]:.0%} to {now[repeats]:.0%}")
    metadata = "has_metadata"
    if metadata in before and metadata in now and before[metadata] != now[metadata]:
        found.append("items have metadata now" if now[metadata] else "items have no metadata any more")
    return "; ".join(found)
