"""Hands the area `ingestion` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.ingestion.assets import lake_interactions, lake_items, lake_job
from pipelines.defs.ingestion.checks import lake_quality
from pipelines.defs.ingestion.sensors import deleted_tenants_sensor, erasures_sensor, new_tenants
from pipelines.resources import Installation


def definitions(installation: Installation) -> dg.Definitions:
    """Exports from the product's database to the lake, the lake's checks, and the erasure of users and tenants."""
    return dg.Definitions(
        assets=[lake_interactions, lake_items],
        asset_checks=[lake_quality],
        jobs=[lake_job],
        sensors=[new_tenants(installation.sensor_status), erasures_sensor, deleted_tenants_sensor],
    )
