"""Hands the area `training` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.training.assets import training_assets
from pipelines.defs.training.schedules import nightly
from pipelines.defs.training.sensors import retrain_after_interactions
from pipelines.resources import Installation


def definitions(installation: Installation) -> dg.Definitions:
    """One asset per model family, their evaluation, and the choice of champions."""
    return dg.Definitions(
        assets=training_assets(),
        sensors=[retrain_after_interactions(installation.sensor_status)],
        schedules=[nightly(installation.pipeline.nightly_cron, installation.schedule_status)],
    )
