"""Publishes champions that a person chose, by command or in MLflow."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from pipelines.defs.publishing.jobs import publish_job
from pipelines.jobs import PUBLISH, RETRAIN, retrain
from pipelines.partitions import GENERATION_TENANT_TAG, TENANTS
from pipelines.resources import Installation
from pipelines.runs import active_run

INTERVAL_SECONDS = 20
CHOICE_TAG = "recommendai/choice"
"""The tag of a publication with the versions that it was started for."""
PAUSE = timedelta(minutes=5)
"""Between two publications of the same choice, where the release differs after the first because that failed."""
TICK_SECONDS = 20.0
"""A tick that has read the registry for so long leaves the rest to the next one. Dagster would end it after 60 s."""


@dg.sensor(
    name="moved_aliases",
    jobs=[publish_job, retrain],
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on: what a person chose is published also where nobody trains.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def moved_aliases(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult | dg.SkipReason:
    """Publishes champions that a person chose and that the tenant's release does not hold.

    What the promotion rule chose is published by the training itself.
    """
    if installation.tracking.uri is None and not (installation.paths.mlflow / "mlflow.db").exists():
        return dg.SkipReason("no model is registered yet")
    from pipelines.defs.publishing.moved_aliases import scan_registry  # loads MLflow and BentoML
    from pipelines.defs.training.training_inputs import FORCE_TAG

    tenants = set(context.instance.get_dynamic_partitions(TENANTS))
    scan = scan_registry(installation, tenants, context.cursor or None, TICK_SECONDS)
    requests, waiting = [], []
    for tenant, choice in sorted(scan.choices.items()):
        if choice.refits and not active_run(context.instance, tenant):
            key = f"{tenant}:refit:{choice.serving}:{sorted(choice.refits.items())}"
            tags = {"trigger": "rollback", FORCE_TAG: "true"}  # the data are not new, but what is trained on them is
            requests.append(dg.RunRequest(run_key=key, job_name=RETRAIN, partition_key=tenant, tags=tags))
        if not choice.versions:
            continue
        if reason := _busy(context.instance, tenant, choice.key):
            waiting.append(f"{tenant}: {reason}")
            continue
        config = {"ops": {"publish_chosen_champions": {"config": {"tenant": tenant}}}}
        tags = {GENERATION_TENANT_TAG: tenant, CHOICE_TAG: choice.key, "trigger": "rollback"}
        requests.append(dg.RunRequest(job_name=PUBLISH, run_config=config, tags=tags))
    return dg.SensorResult(
        run_requests=requests,
        cursor=scan.token or "",
        skip_reason=None if requests else "; ".join(waiting) or "every release holds the champions",
    )


def _busy(instance: dg.DagsterInstance, tenant: str, choice: str) -> str | None:
    """Why the tenant's champions are not published now; None where they may be."""
    if run := active_run(instance, tenant, PUBLISH, GENERATION_TENANT_TAG):
        return f"run {run.run_id} is {run.status.value.lower()}"
    filters = dg.RunsFilter(job_name=PUBLISH, tags={GENERATION_TENANT_TAG: tenant})
    last = next(iter(instance.get_run_records(filters, limit=1)), None)
    if last is None or last.dagster_run.tags.get(CHOICE_TAG) != choice:
        return None
    tried = last.create_timestamp > datetime.now(UTC) - PAUSE
    return f"run {last.dagster_run.run_id} published what it could" if tried else None
