"""Hands the area `queue` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.queue.sensors import cut_off_runs, long_runs, queue_order
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """The order in which queued runs begin, and which runs start again."""
    return dg.Definitions(sensors=[queue_order, long_runs, cut_off_runs])
