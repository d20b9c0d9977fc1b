"""Billing cycles: month ends, leap days, annual plans, calendar months."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given
from hypothesis import strategies as st

from api.metering.cycles import Cycle, cycle_of

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("anchor", "now", "start", "end"),
    [
        # calendar months, without a subscription
        (None, "2025-01-15T10:30:00", "2025-01-01", "2025-02-01"),
        (None, "2025-01-01T00:00:00", "2025-01-01", "2025-02-01"),
        (None, "2025-12-31T23:59:59.999999", "2025-12-01", "2026-01-01"),
        (None, "2024-02-29T12:00:00", "2024-02-01", "2024-03-01"),
        # an ordinary day: the moment of the turn belongs to the new cycle
        ("2025-01-15T10:30:00", "2025-01-15T10:30:00", "2025-01-15T10:30:00", "2025-02-15T10:30:00"),
        ("2025-01-15T10:30:00", "2025-02-15T10:29:59.999999", "2025-01-15T10:30:00", "2025-02-15T10:30:00"),
        ("2025-01-15T10:30:00", "2025-02-15T10:30:00", "2025-02-15T10:30:00", "2025-03-15T10:30:00"),
        # the 31st: the last day of shorter months, and the 31st again after them
        ("2025-01-31T08:00:00", "2025-02-27T00:00:00", "2025-01-31T08:00:00", "2025-02-28T08:00:00"),
        ("2025-01-31T08:00:00", "2025-03-01T00:00:00", "2025-02-28T08:00:00", "2025-03-31T08:00:00"),
        ("2025-01-31T08:00:00", "2025-04-30T07:59:59", "2025-03-31T08:00:00", "2025-04-30T08:00:00"),
        ("2025-01-31T08:00:00", "2025-05-01T00:00:00", "2025-04-30T08:00:00", "2025-05-31T08:00:00"),
        ("2025-12-31T08:00:00", "2026-01-15T00:00:00", "2025-12-31T08:00:00", "2026-01-31T08:00:00"),
        # the 30th is cut in February alone
        ("2025-01-30T00:00:00", "2025-03-01T00:00:00", "2025-02-28", "2025-03-30"),
        # leap years
        ("2024-01-31T00:00:00", "2024-02-29T00:00:00", "2024-02-29", "2024-03-31"),
        ("2024-01-29T00:00:00", "2024-03-01T00:00:00", "2024-02-29", "2024-03-29"),
        ("2024-02-29T00:00:00", "2025-02-28T00:00:00", "2025-02-28", "2025-03-29"),
        ("2024-02-29T00:00:00", "2028-02-29T00:00:00", "2028-02-29", "2028-03-29"),
        # an annual plan, whose anchor lies long ago, has months too
        ("2024-06-10T09:00:00", "2025-06-10T08:59:59", "2025-05-10T09:00:00", "2025-06-10T09:00:00"),
        ("2024-06-10T09:00:00", "2025-06-10T09:00:00", "2025-06-10T09:00:00", "2025-07-10T09:00:00"),
        # an anchor that is still to come, as a trial's is
        ("2025-03-31T00:00:00", "2025-03-01T00:00:00", "2025-02-28", "2025-03-31"),
    ],
)
def test_the_cycle_of_a_moment(anchor: str | None, now: str, start: str, end: str) -> None:
    assert cycle_of(None if anchor is None else at(anchor), at(now)) == Cycle(at(start), at(end))


def test_days_are_those_of_utc_whatever_the_zone_of_the_moment() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert cycle_of(None, datetime(2025, 2, 1, 3, tzinfo=tokyo)) == Cycle(at("2025-01-01"), at("2025-02-01"))
    anchor = datetime(2025, 1, 31, 20, tzinfo=timezone(timedelta(hours=-6)))  # the 1st of February, 02:00 in UTC
    assert cycle_of(anchor, at("2025-02-20")) == Cycle(at("2025-02-01T02:00:00"), at("2025-03-01T02:00:00"))


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        cycle_of(None, datetime(2025, 1, 1))
    with pytest.raises(ValueError, match="zone"):
        cycle_of(datetime(2025, 1, 1), at("2025-01-01"))


@given(anchor=MOMENTS, now=MOMENTS)
def test_every_moment_lies_in_one_cycle_and_cycles_follow_each_other(anchor: datetime, now: datetime) -> None:
    cycle = cycle_of(anchor, now)
    assert cycle.start <= now < cycle.end
    assert cycle_of(anchor, cycle.start) == cycle
    assert cycle_of(anchor, cycle.end).start == cycle.end
    assert cycle_of(anchor, cycle.start - timedelta(microseconds=1)).end == cycle.start


@given(anchor=MOMENTS, months=st.integers(0, 600))
def test_turns_are_where_another_library_puts_them(anchor: datetime, months: int) -> None:
    assert cycle_of(anchor, anchor + relativedelta(months=months)).start == anchor + relativedelta(months=months)
