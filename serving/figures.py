"""Prometheus metrics of the model server: batches, the cache of answers, and the releases that it holds.

`GET /metrics` of the model server shows them to who has its secret.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

from serving.contracts.messages import ReleaseInfo

OLDEST_TENANTS = 20
"""Tenants that metrics of releases name: those whose release is the oldest."""
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

_BATCH_QUERIES = Histogram("recommendai_batch_queries", "Queries of a batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
_QUEUE_SECONDS = Histogram(
    "recommendai_batch_queue_seconds", "Time that a batch waits for the batches before it", buckets=_SECONDS
)
_BATCH_SECONDS = Histogram(
    "recommendai_batch_seconds", "Time of a batch, from its arrival to its answer", buckets=_SECONDS
)
_ANSWERS = Counter("recommendai_answers_total", "Answers by where they come from", ["source"])
_KEPT, _COMPUTED, _FAILED = (_ANSWERS.labels(source) for source in ("cache", "model", "failed"))
_RELEASES = Gauge("recommendai_releases", "Releases that are loaded, one for each tenant")
_REFUSALS = Counter("recommendai_releases_refused_total", "Releases that could not be loaded, each attempt")
_SIZE = Gauge("recommendai_releases_bytes", "Size of the files of all loaded releases")
_AGE = Gauge(
    "recommendai_release_age_seconds", f"Age of the loaded release, of the {OLDEST_TENANTS} oldest", ["tenant"]
)


def count_batch(queries: int, waited: float, seconds: float) -> None:
    """Count an answered batch. waited, seconds: in the queue, and in all."""
    _BATCH_QUERIES.observe(queries)
    _QUEUE_SECONDS.observe(waited)
    _BATCH_SECONDS.observe(seconds)


def count_answers(kept: int, computed: int, failed: int) -> None:
    """Count answers from the cache, from models, and those that a model failed to give."""
    _KEPT.inc(kept)
    _COMPUTED.inc(computed)
    _FAILED.inc(failed)


def count_refusal() -> None:
    """Count a release that could not be loaded."""
    _REFUSALS.inc()


def metrics_text(releases: Mapping[str, ReleaseInfo], size: int) -> tuple[str, bytes]:
    """The media type and the text of all metrics of this process.

    Args:
        releases: that are loaded, by tenant.
        size: of their files, in bytes.
    """
    now = datetime.now(UTC)
    ages = {tenant: (now - _moment(info.created_at)).total_seconds() for tenant, info in releases.items()}
    _RELEASES.set(len(ages))
    _SIZE.set(size)
    _AGE.clear()
    for tenant in sorted(ages, key=lambda each: -ages[each])[:OLDEST_TENANTS]:
        _AGE.labels(tenant).set(ages[tenant])
    return CONTENT_TYPE_LATEST, generate_latest()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
