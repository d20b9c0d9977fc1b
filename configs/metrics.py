"""Prometheus metrics of a process: a listener on a port of its own, and their text for a program that has a port.

Metrics name no user. A tenant is a label only where a list of the largest is short by itself.
"""

import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import REGISTRY, CollectorRegistry, make_wsgi_app, multiprocess

METRICS_PATH = "/metrics"
"""Of the API on a port of its own, of the model server and Dagster on theirs."""
CLIENT_SECONDS = 5.0
"""How long a client may take to send its request, or to take the answer. Clients are served one after another."""
MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which `prometheus_client` keeps values in files, so that one process can add up those of several."""


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a scraper asks every few seconds."""


@contextmanager
def serving_metrics(host: str, port: int) -> Iterator[int]:
    """Within the block, a thread serves the metrics of this process, or of its worker processes, at `METRICS_PATH`.

    Args:
        port: 0 for one that the system picks. The block gets the port.

    Raises OSError where the port is taken.
    """
    application = make_wsgi_app(registry_of_processes())

    def only_metrics(environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environment.get("PATH_INFO") != METRICS_PATH:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [f"the metrics are at {METRICS_PATH}\n".encode()]
        return application(environment, start)

    server = make_server(host, port, only_metrics, _Server6 if ":" in host else WSGIServer, _Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


class _Server6(WSGIServer):
    address_family = socket.AF_INET6


@contextmanager
def counted_over_processes() -> Iterator[None]:
    """Within the block, worker processes that start keep their values in files of one folder, deleted afterwards."""
    with TemporaryDirectory(prefix="metrics-") as folder:
        os.environ[MULTIPROCESS_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[MULTIPROCESS_FOLDER]


def registry_of_processes() -> CollectorRegistry:
    """What is to be shown: the sum over the processes where values are kept in files, else those of this process."""
    if MULTIPROCESS_FOLDER not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
