"""Hands the area `analytics` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.analytics.assets import analytics_job, daily_accuracy, daily_activity
from pipelines.defs.analytics.schedules import hourly_analytics
from pipelines.defs.analytics.sensors import activity_sensor
from pipelines.resources import Installation


def definitions(installation: Installation) -> dg.Definitions:
    """Counts of a tenant's activity and the accuracy of its releases."""
    return dg.Definitions(
        assets=[daily_activity, daily_accuracy],
        jobs=[analytics_job],
        sensors=[activity_sensor],
        schedules=[hourly_analytics(installation.schedule_status)],
    )
