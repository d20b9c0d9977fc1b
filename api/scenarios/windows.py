"""Whether a rule holds at a moment."""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from api.scenarios.recipe import WEEKDAYS, BusinessWindow


def holds_at(windows: Sequence[BusinessWindow], moment: datetime) -> bool:
    """Whether one of these windows is open, or there are none. moment: with a time zone."""
    return not windows or any(_open(window, moment) for window in windows)


def _open(window: BusinessWindow, moment: datetime) -> bool:
    if window.from_ is not None and moment < window.from_:
        return False
    if window.to is not None and moment >= window.to:
        return False
    if not window.days and window.hours is None:
        return True
    local = moment.astimezone(ZoneInfo(window.time_zone))
    day, hours = local.weekday(), window.hours
    if hours is not None:
        clock = f"{local.hour:02}:{local.minute:02}"  # times of this form compare as texts do
        if hours.from_ < hours.to:
            if not hours.from_ <= clock < hours.to:
                return False
        elif clock < hours.to:
            day = (day - 1) % 7  # the hours began on the day before
        elif clock < hours.from_:
            return False
    return not window.days or WEEKDAYS[day] in window.days
