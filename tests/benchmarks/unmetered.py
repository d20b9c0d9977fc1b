"""The API with metering that can be switched off and on again, for `tests.benchmarks.metering` to hold one against the
other in one process: two processes of the same code differ by more than metering costs.

`uvicorn --factory tests.benchmarks.unmetered:application`; a request to /metered or /unmetered switches.
"""

from typing import Any

from fastapi import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api.asgi import application as metered
from api.http.principal import KeyPrincipal, principal_of
from api.metering import dependencies
from configs.plans import plan


class Free:
    """A metered request whose units nobody counts."""

    plan = plan("unlimited")

    def __init__(self, key: KeyPrincipal) -> None:
        self.scope = key.scope

    def count(self, units: int = 1) -> None:
        """Nothing."""


def free(request: Request, tenant_id: str) -> Any:
    """In place of `dependencies.meter_without_waiting`."""
    key = principal_of(request)
    assert isinstance(key, KeyPrincipal)
    return Free(key)


class Switch:
    """ASGI application: the product's, or the same without admission and counting."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._states = {"/metered": dependencies.meter_without_waiting, "/unmetered": free}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._states.get(scope.get("path", ""))
        if state is None:
            await self._app(scope, receive, send)
        else:
            dependencies.meter_without_waiting = state
            await PlainTextResponse("switched")(scope, receive, send)


def application() -> Switch:
    """The application behind its switch, metered at first."""
    return Switch(metered())
