"""Keeps one partition per tenant, and deletes the files of erased users and deleted tenants."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from feature_store import sources
from feature_store.lake import TenantLake
from pipelines.defs.ingestion.tenant_deletion import delete_tenant_files, files_of_tenant
from pipelines.jobs import BACKFILL, LAKE, LISTS, RETRAIN
from pipelines.partitions import TENANTS, tenants
from pipelines.resources import Installation
from pipelines.runs import active_run

ERASURE_INTERVAL_SECONDS = 600


def new_tenants(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor of partitions. status: whether it starts switched on."""

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
    minimum_interval_seconds=ERASURE_INTERVAL_SECONDS,
    # Always on: users are promised erasure within a day, also where nobody trains.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def erasures_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SensorResult:
    """Exports the lake of each tenant with an erasure that has waited too long, again where a run failed."""
    url = installation.database_url()
    present = set(context.instance.get_dynamic_partitions(TENANTS))
    max_wait = timedelta(hours=installation.pipeline.erase_after_hours)
    requests, waiting = [], []
    cursors = {tenant: TenantLake(installation.paths.lake, tenant).cursor() for tenant in sources.tenants(url)}
    places = {tenant: (cursor.next_xid, cursor.cluster) for tenant, cursor in cursors.items()}
    # One query for all tenants: a tick has a minute, also where there are thousands.
    for unseen in sources.unexported(url, places, at_most=1):
        tenant, erased_at = unseen.tenant_id, unseen.oldest_erasure
        if erased_at is None:
            continue
        if erased_at + max_wait > datetime.now(UTC):
            waiting.append(f"{tenant}: until {erased_at + max_wait:%Y-%m-%d %H:%M} UTC")
        elif run := active_run(context.instance, tenant, LAKE) or active_run(context.instance, tenant, RETRAIN):
            waiting.append(f"{tenant}: run {run.run_id} is {run.status.value.lower()}")
        else:
            requests.append(dg.RunRequest(partition_key=tenant, tags={"trigger": "erasure"}))
    missing = sorted({str(request.partition_key) for request in requests} - present)
    return dg.SensorResult(
        run_requests=requests,
        dynamic_partitions_requests=[tenants.build_add_request(missing)] if missing else [],
        skip_reason=None if requests else "; ".join(waiting) or "no erasure is waiting",
    )


@dg.sensor(
    name="deleted_tenants",
    minimum_interval_seconds=60,
    # Always on, for the same reason as the sensor `erasures`.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def deleted_tenants_sensor(
    context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
) -> dg.SkipReason:
    """Deletes the files, models and releases of deleted tenants, once no run works on them."""
    cleared = []
    for tenant in sources.deleted_tenants(installation.database_url()):
        if not files_of_tenant(installation.paths, tenant):
            continue
        if not any(active_run(context.instance, tenant, job) for job in (RETRAIN, LAKE, LISTS, BACKFILL)):
            delete_tenant_files(installation, tenant)
            cleared.append(tenant)
    return dg.SkipReason(", ".join(cleared) or "no deleted tenant has files left")
