"""Hands the area `tuning` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.tuning.assets import configuration_assets, search_job
from pipelines.defs.tuning.sensors import searches
from pipelines.resources import Installation


def definitions(installation: Installation) -> dg.Definitions:
    """A search for better hyper-parameters of every family, for each tenant."""
    return dg.Definitions(
        assets=configuration_assets(), jobs=[search_job], sensors=[searches(installation.sensor_status)]
    )
