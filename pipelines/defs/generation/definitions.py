"""Hands the area `generation` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.generation.jobs import generate_job, recommendation_records
from pipelines.defs.generation.sensors import generation_jobs_sensor
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """Recommendations for all users of a segment, generated in bulk."""
    return dg.Definitions(assets=[recommendation_records], jobs=[generate_job], sensors=[generation_jobs_sensor])
