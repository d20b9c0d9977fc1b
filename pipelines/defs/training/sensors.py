"""Models follow the interactions."""

import dagster as dg

from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from pipelines.retraining import arrivals
from pipelines.runs import active_run


def retrain_after_interactions(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """A sensor that starts in this status."""

    @dg.sensor(name="retrain_after_interactions", job_name=RETRAIN, minimum_interval_seconds=30, default_status=status)
    def sensor(context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]) -> dg.SensorResult:
        """Retrains a tenant once enough interactions have come since the last export, or enough for a first model."""
        requests, waiting = [], []
        for tenant in sorted(context.instance.get_dynamic_partitions(TENANTS)):
            if run := active_run(context.instance, tenant):
                waiting.append(f"{tenant}: run {run.run_id} is {run.status.value.lower()}")
                continue
            arrived = arrivals(installation, tenant)
            if missing := arrived.missing(installation.pipeline):
                waiting.append(f"{tenant}: {missing} more interactions")
            else:
                # One run per export: where it fails before its own, the nightly run is the next to try.
                key = f"{tenant}:{arrived.next_xid}"
                requests.append(dg.RunRequest(run_key=key, partition_key=tenant, tags={"trigger": "interactions"}))
        return dg.SensorResult(
            run_requests=requests, skip_reason=None if requests else "; ".join(waiting) or "no tenant has a partition"
        )

    return sensor
