"""The day from which on a run makes a tenant's lake and features anew."""

from datetime import UTC, date, datetime

import dagster as dg

BACKFILL_TAG = "recommendai/backfill_from"
"""The tag of a run with that day, YYYY-MM-DD in UTC. Runs of the job `backfill` have it."""


class BackfillDayError(ValueError):
    """A text that is no day that can be made anew."""


def parse_backfill_day(text: str) -> date:
    """The day that a person gave. Raises BackfillDayError where it is none, or in the future."""
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise BackfillDayError(f"{text!r} is no day: give one such as 2026-03-01") from error
    if day > (today := datetime.now(UTC).date()):
        raise BackfillDayError(f"{day} is in the future: today is {today} (UTC)")
    return day


def backfill_day(run: dg.DagsterRun) -> date | None:
    """The day of a run; None where it makes nothing anew. Raises BackfillDayError where its tag holds no such day."""
    text = run.tags.get(BACKFILL_TAG)
    return None if text is None else parse_backfill_day(text)
