"""Starts runs for the generation jobs that the API has stored."""

import dagster as dg

from feature_store.generation_sources import tenants_to_generate
from pipelines.jobs import GENERATE
from pipelines.partitions import GENERATION_TENANT_TAG
from pipelines.resources import Installation
from pipelines.runs import active_run

INTERVAL_SECONDS = 5


@dg.sensor(
    name="generation_jobs",
    job_name=GENERATE,
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on: the API has accepted these jobs.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def generation_jobs_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult:
    """Starts a run for each tenant with an unfinished generation job, again where a run was cut off."""
    requests, busy = [], []
    for tenant in tenants_to_generate(installation.database_url()):
        if run := active_run(context.instance, tenant, GENERATE, GENERATION_TENANT_TAG):
            busy.append(f"{tenant}: run {run.run_id} is {run.status.value.lower()}")
        else:
            config = {"ops": {"generate_recommendations": {"config": {"tenant": tenant}}}}
            requests.append(dg.RunRequest(run_config=config, tags={GENERATION_TENANT_TAG: tenant}))
    return dg.SensorResult(
        run_requests=requests, skip_reason=None if requests else "; ".join(busy) or "no job is waiting"
    )
