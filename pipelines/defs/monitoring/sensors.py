"""Retrains where a tenant's settings want it after drift."""

import dagster as dg

from pipelines.defs.monitoring.flag import read_drift
from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from pipelines.runs import active_run
from pipelines.tenant_settings import all_tenant_settings


def retrain_after_drift(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """The sensor that retrains after drift. status: whether it starts switched on."""

    @dg.sensor(name="retrain_after_drift", job_name=RETRAIN, minimum_interval_seconds=60, default_status=status)
    def sensor(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SensorResult:
        """Retrains a tenant on whose newest day something has drifted, once for each such day."""
        requests, waiting = [], []
        settings = all_tenant_settings(installation)
        for tenant in sorted(context.instance.get_dynamic_partitions(TENANTS)):
            if settings[tenant].drift.action != "retrain" or not (state := read_drift(installation, tenant)).drifted:
                continue
            if run := active_run(context.instance, tenant):
                waiting.append(f"{tenant}: run {run.run_id} is {run.status.value.lower()}")
            else:
                key = f"{tenant}:{state.day}"
                requests.append(dg.RunRequest(run_key=key, partition_key=tenant, tags={"trigger": "drift"}))
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "; ".join(waiting) or "no tenant that retrains after drift has any",
        )

    return sensor
