"""Hands the area `features` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.features.assets import feature_snapshot
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """The feature snapshot that models train on."""
    return dg.Definitions(assets=[feature_snapshot])
