"""Hands the area `publishing` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.publishing.assets import release
from pipelines.defs.publishing.jobs import publish_job
from pipelines.defs.publishing.sensors import moved_aliases
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """The release that the model server serves, and what publishes champions that a person chose."""
    return dg.Definitions(assets=[release], jobs=[publish_job], sensors=[moved_aliases])
