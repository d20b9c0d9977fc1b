"""Hands the area `alerts` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.alerts.sensors import failed_runs
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """Reports runs that failed to the tenants that they were for."""
    return dg.Definitions(sensors=[failed_runs])
