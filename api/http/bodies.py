"""Bounds the size of request bodies, with and without a `Content-Length`."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.headers import header
from api.http.problems import Problem, problem_response

LIMIT = 2 * 1024 * 1024
BATCH_LIMIT = 16 * 1024 * 1024


class BodyLimits:
    """ASGI middleware: answers 413 to bodies over 2 MB, and over 16 MB on paths that end in `/batch`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = BATCH_LIMIT if scope["path"].endswith("/batch") else LIMIT
        declared = header(scope, b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            await problem_response(_too_large(limit))(scope, receive, send)
            return
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise _too_large(limit)
            return message

        await self._app(scope, bounded, send)


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The body is larger than {limit // 1024 // 1024} MB", headers={"Connection": "close"})
