"""Direct routes: the busiest routes, answered without FastAPI's routing, dependencies and validation.

A direct route stands beside a FastAPI route with the same path. It answers only what is certainly valid: a small JSON
body that msgspec decodes into a type at least as strict as the route's schema. Everything else takes the general way,
through FastAPI, which therefore words every error about a body and is the only one in the OpenAPI document. FastAPI
costs 0.14 ms of processor time a request more.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import Problem, problem_response

Body = TypeVar("Body")

MAX_BODY_BYTES = 64 * 1024
"""Larger bodies take the general way."""
NOT_DIRECT = (msgspec.DecodeError, ValueError, RecursionError)
"""What `DirectRoute.read` raises for a body that takes the general way. It has no effect before it raises."""


DirectId = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
"""An `OpaqueId` for msgspec, whose patterns are Python's: there a `$` would also match before a last line feed."""


def read_json(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    """The decoded body. Raises one of `NOT_DIRECT`."""
    body.decode()  # msgspec does not look at the text of what it skips, such as the first of two equal members
    return decoder.decode(body)


class DirectAnswer(NamedTuple):
    """A response whose body is complete."""

    status: int
    headers: dict[str, str]
    body: bytes
    media_type: str = "application/json"


@dataclass(frozen=True)
class DirectRoute(Generic[Body]):
    """A POST route.

    path: that of the FastAPI route.
    read: decodes a body, or raises one of `NOT_DIRECT`.
    answer: does what the FastAPI route does: checks the credential, meters, and answers or raises a Problem.
    """

    path: str
    read: Callable[[bytes], Body]
    answer: Callable[[Request, Body], Awaitable[DirectAnswer]]


class DirectRoutes:
    """ASGI middleware inside all others."""

    def __init__(self, app: ASGIApp, routes: Iterable[DirectRoute[Any]], general: Iterable[BaseRoute]) -> None:
        """general: the routes of FastAPI, which log lines are named after. Raises ValueError where one is missing."""
        self._app = app
        paths = {getattr(route, "path", ""): route for route in general if "POST" in _methods(route)}
        self._routes = {}
        for route in routes:
            if route.path not in paths:
                raise ValueError(f"no general route for {route.path}")
            self._routes[route.path] = (route, paths[route.path])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (found := self._routes.get(scope["path"])) is None or not _is_plain(scope):
            await self._app(scope, receive, send)
            return
        route, scope_route = found
        received: list[Message] = []
        try:
            body = route.read(await _body(receive, received))
        except Problem as problem:  # of the layers around, about the way in which the body arrives
            await problem_response(problem)(scope, receive, send)
            return
        except NOT_DIRECT:
            await self._app(scope, _again(received, receive), send)
            return
        scope["route"] = scope_route
        try:
            answer = await route.answer(Request(scope), body)
        except HTTPException as problem:
            await problem_response(problem)(scope, receive, send)
            return
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        headers.append((b"content-length", b"%d" % len(answer.body)))
        headers.append((b"content-type", answer.media_type.encode("latin-1")))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def _methods(route: BaseRoute) -> set[str]:
    return getattr(route, "methods", None) or set()


def _is_plain(scope: Scope) -> bool:
    """Whether the request has nothing about it that the general way must look at."""
    if scope["method"] != "POST" or scope.get("root_path"):
        return False
    media_type = length = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            if media_type is not None:
                return False
            media_type = value
        elif name == b"content-length":
            length = value
        elif name == b"idempotency-key":
            return False
    return (
        media_type == b"application/json" and length is not None and length.isdigit() and int(length) <= MAX_BODY_BYTES
    )


async def _body(receive: Receive, received: list[Message]) -> bytes:
    """The whole body. Its messages are added to `received`. Raises ValueError where the client goes away."""
    while True:
        message = await receive()
        received.append(message)
        if message["type"] != "http.request":
            raise ValueError("the body ended early")
        if not message.get("more_body", False):
            break
    return b"".join([message.get("body", b"") for message in received])


def _again(received: list[Message], receive: Receive) -> Receive:
    """A `receive` that gives these messages again before it goes on."""
    messages = iter(received)

    async def replay() -> Message:
        for message in messages:
            return message
        return await receive()

    return replay
