"""Retrains a tenant's models when enough new interactions have come."""

import dagster as dg

from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANTS
from pipelines.pending_interactions import pending_interactions
from pipelines.resources import Installation
from pipelines.runs import active_run
from pipelines.tenant_settings import all_tenant_settings, in_force


def retrain_after_interactions(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor of the job `retrain`. status: whether it starts switched on."""

    @dg.sensor(name="retrain_after_interactions", job_name=RETRAIN, minimum_interval_seconds=30, default_status=status)
    def sensor(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SensorResult:
        """Retrains a tenant with enough new interactions since the last export, or enough for a first model."""
        requests, waiting = [], []
        of_tenants = all_tenant_settings(installation)
        for tenant in sorted(context.instance.get_dynamic_partitions(TENANTS)):
            if run := active_run(context.instance, tenant):
                waiting.append(f"{tenant}: run {run.run_id} is {run.status.value.lower()}")
                continue
            settings = in_force(installation, of_tenants[tenant])
            pending = pending_interactions(installation, tenant, settings)
            if missing := pending.missing(settings):
                waiting.append(f"{tenant}: {missing} more interactions")
            else:
                # One run per export: where a run fails before it has exported, the nightly run tries again.
                key = f"{tenant}:{pending.next_xid}"
                requests.append(dg.RunRequest(run_key=key, partition_key=tenant, tags={"trigger": "interactions"}))
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else "; ".join(waiting) or "no tenant has a partition"
        )

    return sensor
