"""Counting what is new of a tenant, step by step."""

import time

from feature_store import analytics_sinks
from feature_store.analytics_sinks import RolledUp
from pipelines.resources import Installation


def roll_up(installation: Installation, tenant_id: str, max_seconds: float = float("inf")) -> RolledUp:
    """Count all that is new of a tenant; stop after the step in which the time is over.

    Raises LookupError where there is no such tenant.
    """
    began, counted = time.monotonic(), RolledUp()
    while True:
        counted += analytics_sinks.roll_up(installation.database_url(), tenant_id)
        if not counted.more or time.monotonic() - began > max_seconds:
            return counted
