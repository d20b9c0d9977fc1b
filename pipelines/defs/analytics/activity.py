"""Counts a tenant's new rows, step by step."""

import time

from feature_store import analytics_sinks
from feature_store.analytics_sinks import RollUpCounts
from pipelines.resources import Installation


def roll_up(installation: Installation, tenant_id: str, max_seconds: float = float("inf")) -> RollUpCounts:
    """Count all rows of a tenant that were not counted yet, or stop after the step in which `max_seconds` ran out.

    Raises LookupError where there is no such tenant.
    """
    began, counts = time.monotonic(), RollUpCounts()
    while True:
        counts += analytics_sinks.roll_up_step(installation.database_url(), tenant_id)
        if not counts.more or time.monotonic() - began > max_seconds:
            return counts
