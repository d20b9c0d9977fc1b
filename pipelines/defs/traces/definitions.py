"""Hands the area `traces` over to `pipelines.definitions`."""

import dagster as dg

from configs.spans import SpanSettings
from pipelines.defs.traces.sensors import traces
from pipelines.resources import Installation


def definitions(_installation: Installation) -> dg.Definitions:
    """Sends the traces of runs, where the settings name a collector."""
    return dg.Definitions(sensors=[traces] if SpanSettings().endpoint is not None else [])
