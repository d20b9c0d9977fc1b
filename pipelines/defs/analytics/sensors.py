"""Totals follow the interactions."""

import time

import dagster as dg

from feature_store import sources
from pipelines.defs.analytics.counting import roll_up
from pipelines.resources import Installation

SECONDS = 10
TICK_SECONDS = 20.0
"""A tick that has counted for this long leaves the rest to the next one; Dagster would end it after 60 s."""


@dg.sensor(
    name="activity",
    minimum_interval_seconds=SECONDS,
    # Always on: what is not counted here, the API counts at each request.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def activity(installation: dg.ResourceParam[Installation]) -> dg.SkipReason:
    """Counts what is new of every tenant. It is a query or two each, for which no run need be started."""
    began = time.monotonic()
    counted: list[str] = []
    failed: list[Exception] = []
    for tenant in sources.tenants(installation.database_url()):
        left = TICK_SECONDS - (time.monotonic() - began)
        if left <= 0:
            break
        try:
            new = roll_up(installation, tenant, left)
        except LookupError:
            continue  # deleted since the list was read
        except Exception as error:  # one tenant's trouble must not keep the others waiting
            error.add_note(f"tenant {tenant}")
            failed.append(error)
            continue
        if new.interactions or new.shown or new.users:
            counted.append(f"{tenant}: {new.interactions} interactions, {new.shown} items shown, {new.users} users")
    if failed:
        raise ExceptionGroup("some tenants could not be counted", failed)
    return dg.SkipReason("; ".join(counted) or "nothing new")
