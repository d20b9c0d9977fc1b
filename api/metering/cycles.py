"""Billing cycles: months from an anchor, for annual plans too; calendar months in UTC where there is no anchor."""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""An anchor whose months are those of the calendar."""


class Cycle(NamedTuple):
    """From `start`, which belongs to it, to `end`, with which the next one starts."""

    start: datetime
    end: datetime


def cycle_of(anchor: datetime | None, now: datetime) -> Cycle:
    """The cycle that `now` lies in. None: the calendar's.

    Each cycle starts on the anchor's day and time in UTC, on the last day of months that are too short for it, and back
    on its day in those that are not: the rule of Stripe's `billing_cycle_anchor`. Raises ValueError for a time without
    zone.

    >>> cycle_of(datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)).start.isoformat()
    '2024-02-29T00:00:00+00:00'
    """
    if now.tzinfo is None or (anchor is not None and anchor.tzinfo is None):
        raise ValueError("a time without zone lies in no cycle")
    anchor, now = (anchor or EPOCH).astimezone(UTC), now.astimezone(UTC)
    months = (now.year - anchor.year) * 12 + now.month - anchor.month
    if _month_after(anchor, months) > now:
        months -= 1
    return Cycle(_month_after(anchor, months), _month_after(anchor, months + 1))


def _month_after(anchor: datetime, months: int) -> datetime:
    """The anchor so many months later: always from the anchor itself, so that the 31st does not wear off."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))
