"""What Dagster loads: every asset, check, sensor and schedule of the pipeline."""

import dagster as dg

from pipelines.defs.analytics.assets import analytics, daily_accuracy, daily_activity
from pipelines.defs.analytics.schedules import hourly
from pipelines.defs.analytics.sensors import activity
from pipelines.defs.features.assets import feature_snapshot
from pipelines.defs.generation.jobs import generate, recommendation_records
from pipelines.defs.generation.sensors import generation_jobs
from pipelines.defs.ingestion.assets import lake_interactions, lake_items
from pipelines.defs.ingestion.checks import lake_quality
from pipelines.defs.ingestion.sensors import deleted_tenants, erasures, new_tenants
from pipelines.defs.publishing.assets import release
from pipelines.defs.training.assets import training_assets
from pipelines.defs.training.schedules import nightly
from pipelines.defs.training.sensors import retrain_after_interactions
from pipelines.io_managers import JsonFiles
from pipelines.jobs import lake, retrain
from pipelines.resources import Installation


def build_definitions(installation: Installation) -> dg.Definitions:
    """The pipeline over this installation. What trains starts on only where its settings say so."""
    on = installation.pipeline.automation
    sensor_status = dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED
    schedule_status = dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED
    return dg.Definitions(
        assets=[
            *(lake_interactions, lake_items, feature_snapshot, *training_assets(), release),
            *(recommendation_records, daily_activity, daily_accuracy),
        ],
        asset_checks=[lake_quality],
        jobs=[retrain, lake, generate, analytics],
        sensors=[
            *(new_tenants(sensor_status), retrain_after_interactions(sensor_status)),
            *(generation_jobs, activity, erasures, deleted_tenants),
        ],
        schedules=[nightly(installation.pipeline.nightly_cron, schedule_status), hourly(schedule_status)],
        resources={
            "installation": installation,
            "io_manager": JsonFiles(folder=str(installation.paths.dagster / "values")),
        },
    )


@dg.definitions
def definitions() -> dg.Definitions:
    """The pipeline of the installation that the environment describes."""
    return build_definitions(Installation())
