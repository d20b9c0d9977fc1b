"""The API with a recorder of spans that can be switched off and on again, for `tests.benchmarks.traces`.

`uvicorn --factory tests.benchmarks.untraced:application`; a request to /traced or /untraced switches.
"""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api.asgi import application as traced
from configs import spans


class Switch:
    """ASGI application: the product's, which records spans or does not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._recorder: spans.SpanRecorder | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path not in ("/traced", "/untraced"):
            await self._app(scope, receive, send)
            return
        self._recorder = self._recorder or spans.recorder()
        spans._recorder = self._recorder if path == "/traced" else None
        await PlainTextResponse("switched")(scope, receive, send)


def application() -> Switch:
    """The application behind its switch, which records at first."""
    return Switch(traced())
