"""Prometheus metrics of all requests: how many of which status, and how long they took, by the route's template."""

from functools import lru_cache

from prometheus_client import Counter, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets of times. The product's promise is 50 ms."""
NO_ROUTE = "none"
"""Label of requests whose path has no route. The path itself may be anything, so it is no label."""

_REQUESTS = Counter(
    "recommendai_http_requests_total", "Requests by route and status; status 0: cut off", ["method", "route", "status"]
)
_SECONDS = Histogram(
    "recommendai_http_request_seconds", "Time from a request to its answer", ["method", "route"], buckets=SECONDS
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request.

    Args:
        route: the template, such as `/api/items/{item_id}`; empty where the path has no route.
        status: 0 where the answer never began.
    """
    known = method if method in _METHODS else "other"
    _counter(known, route or NO_ROUTE, status).inc()
    _histogram(known, route or NO_ROUTE).observe(seconds)


@lru_cache(maxsize=4096)  # finding a metric by its labels takes longer than counting; routes and statuses are few
def _counter(method: str, route: str, status: int) -> Counter:
    return _REQUESTS.labels(method, route, str(status))


@lru_cache(maxsize=1024)
def _histogram(method: str, route: str) -> Histogram:
    return _SECONDS.labels(method, route)
