"""A tenant's partition comes and goes with the tenant, and its files forget who was erased."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from feature_store import sources
from feature_store.lake import TenantLake
from pipelines.defs.ingestion.tenant_deletion import forget_tenant, left_by
from pipelines.jobs import LAKE, RETRAIN
from pipelines.partitions import TENANTS, tenants
from pipelines.resources import Installation
from pipelines.runs import active_run

ERASURE_SECONDS = 600


def new_tenants(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """A sensor that starts in this status."""

    @dg.sensor(name="new_tenants", minimum_interval_seconds=30, default_status=status)
    def sensor(
        context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
    ) -> dg.SensorResult | dg.SkipReason:
        """Adds a partition for every tenant of the database, and removes those of deleted tenants."""
        wanted = set(sources.tenants(installation.database_url()))
        present = set(context.instance.get_dynamic_partitions(TENANTS))
        requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        if added := sorted(wanted - present):
            requests.append(tenants.build_add_request(added))
        if gone := sorted(present - wanted):
            requests.append(tenants.build_delete_request(gone))
        if not requests:
            return dg.SkipReason(f"all {len(wanted)} tenants have their partition")
        return dg.SensorResult(dynamic_partitions_requests=requests)

    return sensor


@dg.sensor(
    name="erasures",
    job_name=LAKE,
    minimum_interval_seconds=ERASURE_SECONDS,
    # Always on: people are promised that they are forgotten within a day, whether or not anybody trains.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def erasures(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SensorResult:
    """Starts a lake run for each tenant with an erasure that no run has come for, again where a run failed."""
    url = installation.database_url()
    present = set(context.instance.get_dynamic_partitions(TENANTS))
    patience = timedelta(hours=installation.pipeline.erase_after_hours)
    requests, waiting = [], []
    for tenant in sources.tenants(url):
        asked = sources.oldest_erasure(url, tenant, TenantLake(installation.paths.lake, tenant).cursor().next_xid)
        if asked is None:
            continue
        if asked + patience > datetime.now(UTC):
            waiting.append(f"{tenant}: until {asked + patience:%Y-%m-%d %H:%M} UTC")
        elif run := active_run(context.instance, tenant, LAKE) or active_run(context.instance, tenant, RETRAIN):
            waiting.append(f"{tenant}: run {run.run_id} is {run.status.value.lower()}")
        else:
            requests.append(dg.RunRequest(partition_key=tenant, tags={"trigger": "erasure"}))
    missing = sorted({str(request.partition_key) for request in requests} - present)
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[tenants.build_add_request(missing)] if missing else [],
        skip_reason=None if requests else "; ".join(waiting) or "nobody waits to be forgotten",
    )


@dg.sensor(
    name="deleted_tenants",
    minimum_interval_seconds=60,
    # Always on, as erasures are.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def deleted_tenants(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SkipReason:
    """Deletes the files, models and releases of tenants that were deleted, once no run works for them."""
    forgotten = []
    for tenant in sources.deleted_tenants(installation.database_url()):
        if not left_by(installation.paths, tenant):
            continue
        if not any(active_run(context.instance, tenant, job) for job in (RETRAIN, LAKE)):
            forget_tenant(installation, tenant)
            forgotten.append(tenant)
    return dg.SkipReason(", ".join(forgotten) or "no deleted tenant has left anything")
