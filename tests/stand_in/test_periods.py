"""Ends of periods, by hand and against another library's calendar."""

from datetime import UTC, datetime
from typing import Any

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.stripe.clock import Clock, boundary_after


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


@pytest.mark.parametrize(
    ("anchor", "interval", "ends"),
    [
        ("2026-01-31T10:00:00Z", "month", ["2026-02-28T10:00:00Z", "2026-03-31T10:00:00Z", "2026-04-30T10:00:00Z"]),
        ("2028-01-30T00:00:00Z", "month", ["2028-02-29T00:00:00Z", "2028-03-30T00:00:00Z"]),
        ("2026-12-31T23:59:59Z", "month", ["2027-01-31T23:59:59Z", "2027-02-28T23:59:59Z", "2027-03-31T23:59:59Z"]),
        ("2028-02-29T12:00:00Z", "year", ["2029-02-28T12:00:00Z", "2030-02-28T12:00:00Z"]),
        ("2026-03-01T00:00:00Z", "week", ["2026-03-08T00:00:00Z", "2026-03-15T00:00:00Z"]),
    ],
)
def test_periods_end_where_the_calendar_allows(anchor: str, interval: str, ends: list[str]) -> None:
    start, found = moment(anchor), []
    at = start
    for _ in ends:
        at = boundary_after(start, interval, 1, at)
        found.append(at)
    assert found == [moment(end) for end in ends]


@given(
    anchor=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    later=st.integers(0, 12 * 366 * 86_400),
    interval=st.sampled_from(["month", "year"]),
    count=st.integers(1, 6),
)
def test_boundary_is_the_first_multiple_after_the_moment(
    anchor: datetime, later: int, interval: str, count: int
) -> None:
    anchor = anchor.replace(microsecond=0)
    start = int(anchor.timestamp())
    found = boundary_after(start, interval, count, start + later)
    months = count * (12 if interval == "year" else 1)
    multiples = (anchor + relativedelta(months=months * step) for step in range(1, 200))
    expected: Any = next(each for each in multiples if each.timestamp() > start + later)
    assert found == int(expected.timestamp())


def test_clock_stands_runs_and_holds() -> None:
    clock = Clock(frozen=1_000)
    with clock.hold(500):
        assert clock.now() == 500
    assert clock.now() == 1_000
    clock.move(2_000)
    assert clock.now() == 2_000
    clock.move(10**10, frozen=False)
    assert 10**10 <= clock.now() < 10**10 + 60
