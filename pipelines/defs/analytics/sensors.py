"""Keeps the totals of all tenants up to date."""

import time

import dagster as dg

from feature_store import sources
from pipelines.defs.analytics.activity import roll_up
from pipelines.resources import Installation

INTERVAL_SECONDS = 10
TICK_SECONDS = 20.0
"""A tick that has counted for so long leaves the rest to the next one. Dagster would end it after 60 s."""


@dg.sensor(
    name="activity",
    minimum_interval_seconds=INTERVAL_SECONDS,
    # Always on, because the API counts at each request whatever was not counted here.
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def activity_sensor(installation: dg.ResourceParam[Installation]) -> dg.SkipReason:
    """Counts the new activity of every tenant. It counts in the tick itself: a few queries need no run."""
    began = time.monotonic()
    counted: list[str] = []
    errors: list[Exception] = []
    for tenant in sources.tenants(installation.database_url()):
        seconds_left = TICK_SECONDS - (time.monotonic() - began)
        if seconds_left <= 0:
            break
        try:
            new = roll_up(installation, tenant, seconds_left)
        except LookupError:
            continue  # the tenant was deleted after the list was read
        except Exception as error:  # an error of one tenant must not keep the others waiting
            error.add_note(f"tenant {tenant}")
            errors.append(error)
            continue
        if new.interactions or new.shown or new.users:
            counted.append(f"{tenant}: {new.interactions} interactions, {new.shown} items shown, {new.users} users")
    if errors:
        raise ExceptionGroup("some tenants could not be counted", errors)
    return dg.SkipReason("; ".join(counted) or "nothing new")
