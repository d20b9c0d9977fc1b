"""Prometheus metrics of the pipelines, at `/metrics` of Dagster's web server: runs, and what no export has seen.

They are read from Dagster's history and from the database when somebody asks, at most once in `KEPT_SECONDS`.
"""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from feature_store import sources
from feature_store.lake import TenantLake
from pipelines.instance import open_instance
from pipelines.jobs import ANALYTICS, GENERATE, LAKE, RETRAIN
from pipelines.resources import Installation

KEPT_SECONDS = 10.0
LARGEST_TENANTS = 20
"""Tenants that a metric names: those with the largest values."""
COUNTED_ROWS = 100_000
"""Counting of a tenant's waiting interactions stops there."""
_JOBS = (RETRAIN, LAKE, GENERATE, ANALYTICS)
_STATUSES = (
    *(DagsterRunStatus.QUEUED, DagsterRunStatus.STARTED, DagsterRunStatus.SUCCESS),
    *(DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED),
)


class PipelineMetrics:
    """One per web server."""

    def __init__(self, installation: Installation) -> None:
        registry = CollectorRegistry()
        registry.register(_PipelineCollector(installation))
        self._registry = registry
        self._lock = asyncio.Lock()
        self._text = b""
        self._read_at = -KEPT_SECONDS

    async def respond(self, request: Request) -> Response:
        """The text of the metrics. Where the database fails, Prometheus sees a 500 and counts the target as down."""
        async with self._lock:
            if time.monotonic() - self._read_at >= KEPT_SECONDS:
                self._text = await asyncio.to_thread(generate_latest, self._registry)
                self._read_at = time.monotonic()
        return Response(self._text, media_type=CONTENT_TYPE_LATEST)


class _PipelineCollector(Collector):
    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing, so that registering the collector reads nothing."""
        yield from ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        with open_instance(self._installation.paths) as instance:
            yield from _runs(instance)
        yield from _unexported(self._installation)


def _runs(instance: dg.DagsterInstance) -> Iterator[GaugeMetricFamily]:
    counts = GaugeMetricFamily("recommendai_runs", "Runs in Dagster's history", labels=["job", "status"])
    ended = GaugeMetricFamily(
        "recommendai_run_last_end_timestamp_seconds", "End of the newest run with this result", labels=["job", "status"]
    )
    took = GaugeMetricFamily(
        "recommendai_run_last_seconds", "Duration of the newest run with this result", labels=["job", "status"]
    )
    for job in _JOBS:
        for status in _STATUSES:
            labels, filters = [job, status.value.lower()], RunsFilter(job_name=job, statuses=[status])
            counts.add_metric(labels, instance.get_runs_count(filters))
            newest = next(iter(instance.get_run_records(filters, limit=1)), None)
            if newest is not None and newest.start_time is not None and newest.end_time is not None:
                ended.add_metric(labels, newest.end_time)
                took.add_metric(labels, newest.end_time - newest.start_time)
    yield from (counts, ended, took)


def _unexported(installation: Installation) -> Iterator[GaugeMetricFamily]:
    url = installation.database_url()
    lakes = {tenant: TenantLake(installation.paths.lake, tenant).cursor() for tenant in sources.tenants(url)}
    places = {tenant: (cursor.next_xid, cursor.cluster) for tenant, cursor in lakes.items()}
    found = sources.unexported(url, places, COUNTED_ROWS)
    now = datetime.now(UTC)
    oldest = [each.oldest_erasure for each in found if each.oldest_erasure is not None]
    yield GaugeMetricFamily(
        "recommendai_lake_waiting_interactions",
        "Interactions that no export has seen",
        value=sum(each.interactions for each in found),
    )
    yield GaugeMetricFamily(
        "recommendai_erasures_waiting",
        "Erased users whose rows the lake may still hold",
        value=sum(each.erasures for each in found),
    )
    yield GaugeMetricFamily(
        "recommendai_erasure_oldest_seconds",
        "Age of the oldest of these erasures; 0: none",
        value=max(((now - moment).total_seconds() for moment in oldest), default=0.0),
    )
    waiting = GaugeMetricFamily(
        "recommendai_tenant_waiting_interactions",
        f"Interactions that no export has seen, of the {LARGEST_TENANTS} tenants with the most",
        labels=["tenant"],
    )
    for each in sorted(found, key=lambda each: -each.interactions)[:LARGEST_TENANTS]:
        waiting.add_metric([each.tenant_id], each.interactions)
    yield waiting
