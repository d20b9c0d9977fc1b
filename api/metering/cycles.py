"""Billing cycles: months from an anchor, also for annual plans; calendar months in UTC where there is no anchor."""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""An anchor whose cycles are the calendar's months."""


class Cycle(NamedTuple):
    """From `start`, inclusive, to `end`, exclusive: the next cycle starts there."""

    start: datetime
    end: datetime


def cycle_of(anchor: datetime | None, now: datetime) -> Cycle:
    """The cycle that contains `now`. anchor: None for calendar months.

    Each cycle starts on the anchor's day of the month and time in UTC, or on the last day of a month that has no such
    day: the rule of Stripe's `billing_cycle_anchor`. Raises ValueError for a time without time zone.

    >>> cycle_of(datetime(2024, 1, 31, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)).start.isoformat()
    '2024-02-29T00:00:00+00:00'
    """
    if now.tzinfo is None or (anchor is not None and anchor.tzinfo is None):
        raise ValueError("a billing cycle needs times with a time zone")
    anchor, now = (anchor or EPOCH).astimezone(UTC), now.astimezone(UTC)
    months = (now.year - anchor.year) * 12 + now.month - anchor.month
    if _month_after(anchor, months) > now:
        months -= 1
    return Cycle(_month_after(anchor, months), _month_after(anchor, months + 1))


def _month_after(anchor: datetime, months: int) -> datetime:
    """The anchor plus so many months. Counting from the anchor itself keeps the 31st after a shorter month."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return anchor.replace(year=year, month=month + 1, day=min(anchor.day, monthrange(year, month + 1)[1]))
