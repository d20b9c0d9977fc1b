"""Dagster's web server behind the guard: `python -m pipelines.webserver`, with the arguments of `dagster-webserver`.

Its own command makes the application and runs it, and takes no middleware. So the class that makes the application is
replaced, in this process alone, by one whose middleware begins with the guard.
"""

from typing import Any

from dagster_webserver import app, cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from configs.console_guard import ConsoleGuard, ConsoleSettings
from configs.metrics import METRICS_PATH
from pipelines.metrics import PipelineMetrics
from pipelines.resources import Installation


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's application, which answers through the guard alone."""

    def build_middleware(self) -> list[Middleware]:
        settings = ConsoleSettings()
        guard = Middleware(ConsoleGuard, hosts=settings.hosts, password=settings.password_text)
        return [guard, *super().build_middleware()]

    def build_routes(self) -> list[BaseRoute]:
        metrics = Route(METRICS_PATH, PipelineMetrics(Installation()).respond)
        return [metrics, *super().build_routes()]  # type: ignore[no-untyped-call]


def main() -> None:
    """Serve until a signal ends it."""
    vars(app)["DagsterWebserver"] = GuardedWebserver
    cli.main()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
