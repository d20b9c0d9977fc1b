"""Hands the area `retention` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.retention.sensors import old_models, old_runs
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """How much of the history of runs and of models is kept."""
    return dg.Definitions(sensors=[old_models, old_runs])
