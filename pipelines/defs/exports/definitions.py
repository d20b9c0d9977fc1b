"""Hands the area `exports` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.exports.jobs import export_files_job
from pipelines.defs.exports.sensors import export_jobs_sensor
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """Files of a tenant's rows, as its administrators ask for them."""
    return dg.Definitions(jobs=[export_files_job], sensors=[export_jobs_sensor])
