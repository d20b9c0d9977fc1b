"""Deletes old rows of interactions, what Dagster keeps of old runs, and MLflow of old versions."""

import dagster as dg

from pipelines.defs.retention.steps import archive_old_interactions, delete_old_recommendations
from pipelines.jobs import PUBLISH, RETRAIN
from pipelines.old_runs import delete_old_runs
from pipelines.partitions import GENERATION_TENANT_TAG, TENANT_TAG, TENANTS
from pipelines.resources import Installation
from pipelines.runs import active_run

INTERVAL_SECONDS = 3_600


@dg.sensor(
    name="old_runs",
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on: the history grows where people start runs, too.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def old_runs(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SensorResult:
    """Deletes all but the newest `RETENTION_RUNS` runs of each job and tenant. What a tick has no time for is left to
    the next one."""
    deleted, cursor = delete_old_runs(context.instance, installation.retention.runs, context.cursor or None)
    return dg.SensorResult(cursor=cursor or "", skip_reason=f"{deleted} old runs deleted")


@dg.sensor(
    name="old_models",
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on: people train and register versions, too.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def old_models(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult | dg.SkipReason:
    """Deletes all but the newest `RETENTION_MODEL_VERSIONS` versions of each family that no release, alias or rollback
    needs, with their runs and artefacts. Tenants that train now wait for the next tick."""
    if installation.tracking.uri is None and installation.tracking.store(installation.paths) is None:
        return dg.SkipReason("no model is registered yet")
    from pipelines.old_models import delete_old_models  # loads MLflow and BentoML

    def is_busy(tenant: str) -> bool:
        return any(
            active_run(context.instance, tenant, job, tag) is not None
            for job, tag in ((RETRAIN, TENANT_TAG), (PUBLISH, GENERATION_TENANT_TAG))
        )

    tenants = context.instance.get_dynamic_partitions(TENANTS)
    done = delete_old_models(installation, tenants, is_busy, context.cursor or None)
    for tenant, error in done.failed.items():
        context.log.error(f"old versions of {tenant} were not deleted: {error}")
    failed = f"; those of {len(done.failed)} tenants could not be" if done.failed else ""
    late = "" if done.collected else "; `mlflow gc` took too long and goes on at the next tick"
    return dg.SensorResult(cursor=done.cursor or "", skip_reason=f"{done.deleted} old versions deleted{failed}{late}")


@dg.sensor(
    name="old_recommendation_files",
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on: where no files are written, there is nothing to delete.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def old_recommendation_files(installation: dg.ResourceParam[Installation]) -> dg.SkipReason:
    """Deletes the Parquet files of generation jobs that completed more than `GENERATION_FILE_DAYS` ago, failed or are
    gone."""
    return dg.SkipReason(f"files of {delete_old_recommendations(installation)} generation jobs deleted")


@dg.sensor(
    name="old_interactions",
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on: nothing is moved unless `RETENTION_INTERACTION_DAYS` is set.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def old_interactions(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult | dg.SkipReason:
    """Moves interactions that are older than `RETENTION_INTERACTION_DAYS` and in the lake to the archive. What a tick
    has no time for is left to the next one."""
    if installation.retention.interaction_days is None:
        return dg.SkipReason("RETENTION_INTERACTION_DAYS is not set")
    moved, cursor = archive_old_interactions(installation, context.cursor or None)
    return dg.SensorResult(cursor=cursor or "", skip_reason=f"{moved:,} interactions moved to the archive")
