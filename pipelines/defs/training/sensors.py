"""Retrains a tenant's models when enough new interactions have come."""

import dagster as dg

from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.pending_interactions import pending_interactions
from pipelines.resources import Installation
from pipelines.runs import active_runs
from pipelines.tenant_settings import all_tenant_settings, in_force

SHOWN_TENANTS = 50


def retrain_after_interactions(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor of the job `retrain`. status: whether it starts switched on."""

    @dg.sensor(name="retrain_after_interactions", job_name=RETRAIN, minimum_interval_seconds=30, default_status=status)
    def sensor(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SensorResult:
        """Retrains a tenant with enough new interactions since the last export, or enough for a first model."""
        requests, waiting = [], []
        of_tenants = all_tenant_settings(installation)
        tenants = sorted(context.instance.get_dynamic_partitions(TENANTS))
        active = {run.tags[TENANT_TAG]: run for run in active_runs(context.instance, RETRAIN)}
        waiting += [f"{tenant}: run {run.run_id} is {run.status.value.lower()}" for tenant, run in active.items()]
        settings = {tenant: in_force(installation, of_tenants[tenant]) for tenant in tenants if tenant not in active}
        for tenant, pending in pending_interactions(installation, settings).items():
            if missing := pending.missing(settings[tenant]):
                waiting.append(f"{tenant}: {missing} more interactions")
            else:
                # One run per export: where a run fails before it has exported, the nightly run tries again.
                key = f"{tenant}:{pending.next_xid}"
                requests.append(dg.RunRequest(run_key=key, partition_key=tenant, tags={"trigger": "interactions"}))
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else _shown(waiting))

    return sensor


def _shown(waiting: list[str]) -> str:
    """Why nothing starts, for the first tenants: Dagster stores the text of every tick."""
    rest = f"; and {len(waiting) - SHOWN_TENANTS} more tenants" if len(waiting) > SHOWN_TENANTS else ""
    return "; ".join(waiting[:SHOWN_TENANTS]) + rest or "no tenant has a partition"
