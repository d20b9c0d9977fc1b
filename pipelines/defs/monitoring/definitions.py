"""Hands the area `monitoring` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.monitoring.assets import drift, drift_job
from pipelines.defs.monitoring.schedules import daily_drift
from pipelines.defs.monitoring.sensors import retrain_after_drift
from pipelines.resources import Installation


def definitions(installation: Installation) -> dg.Definitions:
    """Whether a tenant's data have changed in kind."""
    return dg.Definitions(
        assets=[drift],
        jobs=[drift_job],
        sensors=[retrain_after_drift(installation.sensor_status)],
        schedules=[daily_drift(installation.schedule_status)],
    )
