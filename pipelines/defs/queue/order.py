"""Whose queued run is next: pure functions of the queue and of when tenants' runs began.

Within each kind of work, the tenants take turns. The oldest queued run of a tenant is its *head*. All heads come before
all other runs, and the first head is that of the tenant whose last run of this kind began longest ago. A tenant whose
run begins goes behind the tenants that wait. So a tenant waits for one run of each other tenant at most, however many
runs the others have queued.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.jobs import LAST_IN_QUEUE

Turn = tuple[str, str]
"""A tenant and a kind of work. Tenants take turns within each kind."""


@dataclass(frozen=True)
class QueuedRun:
    """A run that waits. priority: Dagster's daemon starts runs with the highest one first."""

    run_id: str
    turn: Turn
    priority: int


def changed_priorities(queue: Sequence[QueuedRun], last_began: Mapping[Turn, float]) -> dict[str, int]:
    """The new priorities, by run id, of the queued runs whose priority has to change.

    A run with a priority above 0 keeps it, because a person gave it.

    Args:
        queue: all queued runs, the oldest first.
        last_began: when the newest run of each turn began, in seconds since 1970; turns without a recent run are left
            out and come first.
    """
    changed, heads = {}, set()
    for run in queue:
        if run.priority > 0:
            continue
        is_head = run.turn not in heads
        heads.add(run.turn)
        priority = -int(last_began.get(run.turn, 0) * 1000) if is_head else LAST_IN_QUEUE
        if priority != run.priority:
            changed[run.run_id] = priority
    return changed
