"""Three hundred tenants share the searches' minutes: everybody has a turn, and no day takes more than its budget."""

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from pipelines.defs.tuning.turns import RETRY_AFTER, SearchCandidate, changed_in_kind, next_turns

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def candidate(tenant: str = "acme", **given: object) -> SearchCandidate:
    values = {"family": "collaborative", "every": 7 * DAY, "minutes": 20.0, "events_per_day": 10.0, **given}
    return SearchCandidate(tenant=tenant, **values)  # type: ignore[arg-type]


def test_300_tenants_are_all_searched_again_and_again_within_the_budget() -> None:
    """The budget is for half of what is due; activities differ by six orders; one search in five is stopped."""
    rng = np.random.default_rng(0)
    budget = 300.0
    known = {
        tenant: candidate(
            f"tenant-{tenant}",
            minutes=float(rng.choice([1, 5, 20, 600], p=[0.3, 0.4, 0.29, 0.01])),  # some want more than a day has
            events_per_day=float(10 ** rng.uniform(-1, 5)),
        )
        for tenant in range(300)
    }
    spent: list[tuple[datetime, float]] = []
    searched: dict[int, list[datetime]] = defaultdict(list)
    now, end = START, START + 60 * DAY
    while now < end:
        left = budget - sum(minutes for began, minutes in spent if now - began < DAY)
        turns = next_turns(list(known.values()), now, left, budget, slots=1)
        assert len(turns) <= 1
        for turn in turns:
            key = int(turn.candidate.tenant.removeprefix("tenant-"))
            took = turn.minutes * float(rng.uniform(0.2, 1.0))
            spent.append((now, turn.minutes))
            now += took * MINUTE
            searched[key].append(now)
            stopped = rng.random() < 0.2
            completed_at = turn.candidate.completed_at if stopped else now
            known[key] = replace(turn.candidate, attempted_at=now, completed_at=completed_at)
        now += MINUTE if turns else 60 * MINUTE
        spent = [each for each in spent if now - each[0] < 2 * DAY]
        assert sum(minutes for began, minutes in spent if now - began < DAY) <= budget
    assert set(searched) == set(known)  # the least active too
    waits = [after - before for times in searched.values() for before, after in pairwise(times)]
    assert min(waits) >= RETRY_AFTER
    assert max(*waits, *(end - times[-1] for times in searched.values())) < 30 * DAY


def test_the_oldest_search_is_first_and_among_equals_that_of_the_most_active_tenant() -> None:
    old, new = START - 20 * DAY, START - 9 * DAY
    many = [
        candidate("recent", attempted_at=new, completed_at=new, events_per_day=10.0),
        candidate("busy", attempted_at=old, completed_at=old, events_per_day=5_000.0),
        candidate("quiet", attempted_at=old, completed_at=old, events_per_day=0.0),
        candidate("never"),
        candidate("never-and-busy", events_per_day=5_000.0),
        candidate("fresh", attempted_at=START - DAY, completed_at=START - DAY),
    ]
    turns = next_turns(many, START, minutes_left=1_000, budget=1_000, slots=10)
    assert [turn.candidate.tenant for turn in turns] == ["never-and-busy", "never", "busy", "quiet", "recent"]


def test_a_long_search_is_not_passed_over_for_want_of_minutes_and_a_tenant_has_one_at_a_time() -> None:
    long, short = candidate("long", minutes=100.0, events_per_day=1_000.0), candidate("short", minutes=1.0)
    assert next_turns([short, long], START, minutes_left=49, budget=120, slots=2) == []
    assert [turn.minutes for turn in next_turns([short, long], START, minutes_left=50, budget=120, slots=2)] == [50]
    turns = next_turns([short, long], START, minutes_left=120, budget=120, slots=2)
    assert [(turn.candidate.tenant, turn.minutes) for turn in turns] == [("long", 100), ("short", 1)]
    assert [turn.minutes for turn in next_turns([long], START, minutes_left=60, budget=60, slots=1)] == [60]
    assert next_turns([long], START, minutes_left=0, budget=0, slots=1) == []
    twice = [candidate(family="collaborative"), candidate(family="hybrid", order=1)]
    assert [turn.candidate.family for turn in next_turns(twice, START, 1_000, 1_000, slots=2)] == ["collaborative"]


def test_a_search_is_due_after_its_period_or_when_the_data_changed_in_kind_but_not_at_once_after_a_stop() -> None:
    done = START - 2 * DAY
    assert candidate(attempted_at=done, completed_at=done).due(START) == ""
    assert candidate(attempted_at=done, completed_at=done, every=2 * DAY).due(START) == "last searched 2025-12-30"
    changed = "events went from 10 to 30"
    assert candidate(attempted_at=done, completed_at=done, changed=changed).due(START) == changed
    assert candidate(attempted_at=START - timedelta(hours=5), changed=changed).due(START) == ""
    assert candidate(attempted_at=START - timedelta(hours=6)).due(START)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_events": 1_999, "n_items": 51}, ""),
        ({"n_events": 2_100}, "events went from 1,000 to 2,100"),
        ({"n_items": 40}, "items went from 100 to 40"),
        ({"repeat_share": 0.3}, "repeated interactions went from 10% to 30%"),
        ({"has_metadata": False}, "items have no metadata any more"),
    ],
)
def test_data_change_in_kind_by_a_factor_of_two_by_repetition_and_by_metadata(
    change: dict[str, object], said: str
) -> None:
    before = {"n_events": 1_000, "n_items": 100, "n_users": 50, "repeat_share": 0.1, "has_metadata": True}
    assert changed_in_kind(before, {**before, **change}) == said
    assert changed_in_kind({}, before) == ""  # an earlier version kept no profile
