"""Hands the area `queue` over to `pipelines.definitions`."""

import dagster as dg

from pipelines.defs.queue.sensors import cut_off_runs, long_runs, queue_order
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """In which order queued runs begin, and which begin anew."""
    return dg.Definitions(sensors=[queue_order, long_runs, cut_off_runs])
