"""Goes on with a failed run of the whole pipeline at the steps that failed or were not reached.

Dagster's UI does the same with *Re-execute from failure*. Values of the steps that succeeded are files
(`pipelines.io_managers`), and trained models wait in the work folder of their snapshot, so nothing is made twice.
"""

from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.storage.tags import TAGS_TO_MAYBE_OMIT_ON_RETRY

from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANT_TAG


class NothingToResumeError(Exception):
    """The tenant has no run that could go on."""


def failed_run(instance: dg.DagsterInstance, tenant_id: str) -> dg.DagsterRun:
    """The tenant's newest run of the whole pipeline. Raises NothingToResumeError where it did not fail.

    An earlier failed run cannot go on, since later ones have replaced the values that it made.
    """
    filters = dg.RunsFilter(job_name=RETRAIN, tags={TENANT_TAG: tenant_id})
    newest = next(iter(instance.get_runs(filters, limit=1)), None)
    if newest is None:
        raise NothingToResumeError(f"tenant {tenant_id} has no run yet")
    if newest.status not in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
        raise NothingToResumeError(f"the newest run of tenant {tenant_id} is {newest.status.value.lower()}")
    return newest


def resume(
    job: dg.JobDefinition, instance: dg.DagsterInstance, failed: dg.DagsterRun, run_id: str, tags: Mapping[str, str]
) -> bool:
    """Execute in this process what is left of a failed run, and return whether it succeeded.

    `dagster.execute_job` does the same for runs whose id it chooses itself, so that nobody could follow its events.

    Args:
        run_id: id of the new run, which names the failed one as its parent.
        tags: replace those of the failed run.
    """
    kept = {name: value for name, value in failed.tags.items() if name not in TAGS_TO_MAYBE_OMIT_ON_RETRY}
    wrapped, all_tags = InMemoryJob(job), {**kept, **tags}
    steps, state = KnownExecutionState.build_resume_retry_reexecution(instance, failed)
    plan = create_execution_plan(
        wrapped, failed.run_config, step_keys_to_execute=steps, known_state=state, tags=all_tags
    )
    run = instance.create_run_for_job(
        job_def=job,
        execution_plan=plan,
        run_id=run_id,
        run_config=failed.run_config,
        tags=all_tags,
        root_run_id=failed.root_run_id or failed.run_id,
        parent_run_id=failed.run_id,
        asset_selection=failed.asset_selection,
    )
    return execute_run(wrapped, run, instance).success
