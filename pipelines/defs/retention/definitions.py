"""Hands the area `retention` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.retention.sensors import old_interactions, old_models, old_recommendation_files, old_runs
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """How much of the history of interactions, runs and models is kept."""
    return dg.Definitions(sensors=[old_interactions, old_models, old_recommendation_files, old_runs])
