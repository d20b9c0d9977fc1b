"""Runs of a tenant: at most one at a time, and none that claims to go on after its process has ended."""

import os
import socket
from pathlib import Path

import dagster as dg

from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANT_TAG

PROCESS_TAG = "recommendai/process"
"""`host:pid:start time` of a run outside the daemon, or of one that notes it itself: tells whether the run lives."""

_ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def active_run(
    instance: dg.DagsterInstance, tenant_id: str, job: str = RETRAIN, tenant_tag: str = TENANT_TAG
) -> dg.DagsterRun | None:
    """The tenant's run of a job that is queued or running, if any. Runs whose process died are marked failed first."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=_ACTIVE, tags={tenant_tag: tenant_id}))
    return next((run for run in runs if not _ended(instance, run)), None)


def fail_abandoned(instance: dg.DagsterInstance) -> list[str]:
    """Mark failed what ran when the machine or the daemon was killed; call before a daemon starts. Returns run ids.

    A run of the daemon cannot outlive it. Queued runs stay queued: the next daemon takes them up.
    """
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[each for each in _ACTIVE if each.value != "QUEUED"])):
        if PROCESS_TAG not in run.tags:
            instance.report_run_failed(run, "The daemon that ran this ended before the run did.")
            failed.append(run.run_id)
        elif _ended(instance, run):
            failed.append(run.run_id)
    return failed


def this_process() -> str:
    """The value of PROCESS_TAG for this process."""
    return _identity(os.getpid()) or f"{socket.gethostname()}:{os.getpid()}:0"


def _ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    process = run.tags.get(PROCESS_TAG)
    if process is None:
        return False
    host, pid, _ = process.rsplit(":", 2)
    if host != socket.gethostname() or _identity(int(pid)) == process:
        return False
    instance.report_run_failed(run, "The process that ran this ended before the run did.")
    return True


def _identity(pid: int) -> str | None:
    """`host:pid:start`; a pid alone comes back with another process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{socket.gethostname()}:{pid}:{fields[19]}"
