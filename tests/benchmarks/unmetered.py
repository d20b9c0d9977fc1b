"""The API as it would be without metering, for `tests.benchmarks.metering` to hold it against."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.asgi import application as metered
from api.metering import gate
from configs.plans import plan


class Free:
    """Usage that nobody counts."""

    plan = plan("unlimited")

    def count(self, units: int = 1) -> None:
        """Nothing."""


def application() -> FastAPI:
    """The application, whose routes neither ask whether they may nor count what they did."""
    app = metered()
    app.user_middleware = [each for each in app.user_middleware if each.cls is not gate.Metering]
    changed = [_without(route) for route in _routes(app.routes)]
    if sum(changed) < 4:
        raise LookupError("the metered routes were not found")
    return app


def _without(route: APIRoute) -> bool:
    """Take the dependency off the route; whether it had it."""
    found = [part for part in route.dependant.dependencies if part.call is gate._metered]
    for part in found:
        route.dependant.dependencies.remove(part)
        route.dependant.call = partial(route.dependant.call, **{str(part.name): Free()})
    return bool(found)


def _routes(routes: Any) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (router := getattr(route, "original_router", None)) is not None:
            yield from _routes(router.routes)
