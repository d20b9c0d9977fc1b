"""Hands the area `settings` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.settings.assets import pipeline_settings
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """What each tenant has set of its pipeline."""
    return dg.Definitions(assets=[pipeline_settings])
