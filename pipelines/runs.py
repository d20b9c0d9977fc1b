"""The active run of a tenant, and runs that Dagster shows as active although their process has ended."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import WILL_RETRY_TAG

from pipelines.jobs import GENERATE, RETRAIN
from pipelines.partitions import TENANT_TAG

PROCESS_TAG = "recommendai/process"
"""`host:pid:start time` of the process that executes a run, by which others see whether the run is alive.

Runs of the command line and of generations have this tag."""

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
_ACTIVE = [
    *_WAITING,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def active_run(
    instance: dg.DagsterInstance, tenant_id: str, job: str = RETRAIN, tenant_tag: str = TENANT_TAG
) -> dg.DagsterRun | None:
    """The tenant's queued or running run of a job, if any. Marks runs as failed whose process has ended."""
    return next(iter(active_runs(instance, job, {tenant_tag: tenant_id})), None)


def active_runs(
    instance: dg.DagsterInstance, job: str, tags: Mapping[str, str] | None = None
) -> Iterator[dg.DagsterRun]:
    """The queued and running runs of a job with these tags. Marks runs as failed whose process has ended."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=_ACTIVE, tags=dict(tags or {})))
    return (run for run in runs if not _fail_if_ended(instance, run))


def waiting_work(instance: dg.DagsterInstance) -> str:
    """Why a search may not use the machine now: a training waits or runs, or a generation waits. Empty where it may."""
    if run := next(active_runs(instance, RETRAIN), None):
        return f"the training {run.run_id} is {run.status.value.lower()}"
    if waiting := instance.get_runs(dg.RunsFilter(job_name=GENERATE, statuses=_WAITING), limit=1):
        return f"the generation {waiting[0].run_id} waits"
    return ""


def abandoned_runs(instance: dg.DagsterInstance) -> list[str]:
    """Ids of runs that ended with their machine or code server, and that Dagster still shows as active.

    Call it before a new code server starts runs: no run outlives the server that started it. Queued runs are left out.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=[each for each in _ACTIVE if each.value != "QUEUED"]))
    return [run.run_id for run in runs if PROCESS_TAG not in run.tags or _has_ended(run)]


def fail_runs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> list[str]:
    """Mark those of these runs as failed that have not ended, and return their ids.

    Call it once a code server answers. Within seconds Dagster's daemon asks the server for the plan of the run that
    replaces each, and it does not ask again where that fails.
    """
    failed = []
    for run_id in run_ids:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status not in ENDED:
            instance.report_run_failed(run, "The program that ran this ended before the run did.")
            failed.append(run_id)
    return failed


def claim_for_resuming(instance: dg.DagsterInstance, failed: dg.DagsterRun) -> None:
    """Keep Dagster's daemon from starting a failed run again, because the caller resumes it."""
    instance.add_run_tags(failed.run_id, {WILL_RETRY_TAG: "false"})


def is_retried_by_daemon(run: dg.DagsterRun) -> bool:
    """Whether Dagster's daemon starts a failed run again, because the run was cut off and no step of it failed."""
    return run.tags.get(WILL_RETRY_TAG) == "true"


def this_process() -> str:
    """The value of PROCESS_TAG for this process."""
    return _identity(os.getpid()) or f"{socket.gethostname()}:{os.getpid()}:0"


def _fail_if_ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    if not _has_ended(run):
        return False
    instance.report_run_failed(run, "The process that ran this ended before the run did.")
    return True


def _has_ended(run: dg.DagsterRun) -> bool:
    """Whether the process in the run's tag ran on this machine and is gone."""
    process = run.tags.get(PROCESS_TAG)
    if process is None:
        return False
    host, pid, _ = process.rsplit(":", 2)
    return host == socket.gethostname() and _identity(int(pid)) != process


def _identity(pid: int) -> str | None:
    """`host:pid:start time`, or None where no such process runs. A pid alone may be reused by another process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return f"{socket.gethostname()}:{pid}:{fields[19]}"
