"""Prometheus metrics of recommendations: time by family, and how often popularity answered, and why."""

from functools import lru_cache

from prometheus_client import Counter, Histogram

from api.http.figures import SECONDS
from serving.contracts.messages import ALGORITHMS

_PLUGGED_IN = "other"
"""Label of every family that is none of ours: a client may name any."""
_ANY = "any"
"""Label of queries that name no family."""

_SECONDS = Histogram(
    "recommendai_recommendation_seconds",
    "Time of a recommendation within the API, the model server's included",
    ["query", "algorithm"],
    buckets=SECONDS,
)
_FALLBACKS = Counter(
    "recommendai_fallbacks_total", "Answers by popularity, because no model could answer", ["query", "reason"]
)


def count_answer(query: str, algorithm: str | None, seconds: float, degraded: str | None) -> None:
    """Count one answer.

    Args:
        query: `recommend` or `similar`.
        algorithm: the requested family; None where the query names none.
        degraded: of `Recommendations`.
    """
    label = _ANY if algorithm is None else algorithm if algorithm in ALGORITHMS else _PLUGGED_IN
    _histogram(query, label).observe(seconds)
    if degraded is not None:
        _FALLBACKS.labels(query, degraded.partition(";")[0]).inc()


@lru_cache(maxsize=64)
def _histogram(query: str, algorithm: str) -> Histogram:
    return _SECONDS.labels(query, algorithm)
