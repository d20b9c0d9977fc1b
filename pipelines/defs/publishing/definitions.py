"""Hands the area `publishing` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.publishing.assets import release
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """The release that the model server serves."""
    return dg.Definitions(assets=[release])
