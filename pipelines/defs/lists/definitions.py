"""Hands the area `lists` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.lists.assets import item_lists, lists_job, segment_members
from pipelines.defs.lists.sensors import outdated_lists
from pipelines.resources import Installation


def definitions(installation: Installation) -> dg.Definitions:
    """Lists of items that no model makes, and segments of users and items."""
    return dg.Definitions(
        assets=[item_lists, segment_members], jobs=[lists_job], sensors=[outdated_lists(installation.sensor_status)]
    )
