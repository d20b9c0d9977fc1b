"""Deletes old runs from Dagster's history, of each job and tenant all but the newest."""

import time
from pathlib import Path

import dagster as dg

from pipelines.partitions import GENERATION_TENANT_TAG, TENANT_TAG
from pipelines.runs import ENDED

RUNS_PER_QUERY = 100
"""Runs that are read at once."""


def delete_old_runs(
    instance: dg.DagsterInstance, keep: int, cursor: str | None = None, seconds: float = 20.0
) -> tuple[int, str | None]:
    """Walk through the runs from the oldest on, and delete those that have ended and are not among the newest.

    With a run go its events, the output of its steps and, where each run has a file of events, that file.

    Args:
        keep: runs of each job and tenant that stay, whatever became of them. They hold the newest materializations.
        cursor: the run after which the walk goes on; None: from the beginning.
        seconds: after which it stops at the next batch.

    Returns how many were deleted, and the cursor of the next call; None where all runs were walked through.
    """
    began, deleted = time.monotonic(), 0
    newest: dict[tuple[str, str | None], frozenset[str]] = {}
    while True:
        runs = instance.get_runs(cursor=cursor, limit=RUNS_PER_QUERY, ascending=True)
        kept = cursor
        for run in runs:
            group, filters = _group(run)
            if group not in newest:
                newest[group] = frozenset(instance.get_run_ids(filters, limit=keep))
            if run.status in ENDED and run.run_id not in newest[group]:
                _delete(instance, run.run_id)
                deleted += 1
            else:
                kept = run.run_id  # a cursor must name a run that is there
        cursor = kept
        if len(runs) < RUNS_PER_QUERY:
            return deleted, None
        if time.monotonic() - began > seconds:
            return deleted, cursor


def _group(run: dg.DagsterRun) -> tuple[tuple[str, str | None], dg.RunsFilter]:
    for tag in (TENANT_TAG, GENERATION_TENANT_TAG):
        if tag in run.tags:
            tenant = run.tags[tag]
            return (run.job_name, f"{tag}={tenant}"), dg.RunsFilter(job_name=run.job_name, tags={tag: tenant})
    return (run.job_name, None), dg.RunsFilter(job_name=run.job_name)


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    path_of = getattr(instance.event_log_storage, "path_for_shard", None)  # SQLite's alone
    if path_of is not None:
        for suffix in ("", "-wal", "-shm"):
            Path(path_of(run_id) + suffix).unlink(missing_ok=True)
