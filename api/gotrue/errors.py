"""Problem details for GoTrue's clients: they also carry GoTrue's `code` (the status), `error_code` and `msg`."""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import problems
from api.http.headers import header
from api.http.problems import MEDIA_TYPE, Problem
from api.users.passwords import WeakPassword
from api.users.service import AddressTaken, InvalidAddress

PREFIX = "/auth/v1"

# For errors that services raise: the status and `error_code` that GoTrue answers.
TRANSLATED: dict[type[Problem], tuple[int, str]] = {
    problems.WrongCredentials: (400, "invalid_credentials"),
    problems.RegistrationClosed: (403, "signup_disabled"),
    problems.SamePassword: (422, "same_password"),
    problems.ManagedElsewhere: (403, "user_sso_managed"),
    WeakPassword: (422, "weak_password"),
    InvalidAddress: (400, "email_address_invalid"),
}
# For all other errors: the `error_code` by status.
BY_STATUS = {
    400: "validation_failed",
    401: "bad_jwt",
    404: "not_found",
    413: "validation_failed",
    429: "over_request_rate_limit",
}
OTHERWISE = "unexpected_failure"


class GoTrueRoute(APIRoute):
    """A route that raises its problems with GoTrue's status and error code."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        taken = "user_already_exists" if self.path.endswith("/signup") else "email_exists"

        async def translated(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as problem:
                raise translate(problem, taken) from problem

        return translated


def translate(problem: Problem, taken: str) -> Problem:
    """The problem with GoTrue's status and error code; the same problem where GoTrue has no code for it.

    taken: the error code for an address that another user has.
    """
    if isinstance(problem, AddressTaken):
        return _problem(problem, 422, taken)
    if isinstance(problem, problems.RefreshRefused):
        code = "refresh_token_already_used" if problem.reused else "refresh_token_not_found"
        return _problem(problem, 400, code)
    for kind, (status, code) in TRANSLATED.items():
        if isinstance(problem, kind):
            more = {"weak_password": {"reasons": [problem.reason]}} if isinstance(problem, WeakPassword) else {}
            return _problem(problem, status, code, more)
    return problem


def _problem(problem: Problem, status: int, code: str, more: dict[str, Any] | None = None) -> Problem:
    extra = {"error_code": code, **(more or {})}
    headers = problem.headers if status == problem.status_code else None
    return Problem(status, str(problem.detail), errors=problem.errors, headers=headers, extra=extra)


class GoTrueErrors:
    """ASGI middleware around all others: completes every problem on GoTrue's routes, whatever layer answered it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def send_completed(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    completed = _completed(body, header(scope, b"authorization") is not None)
                    length = (b"content-length", b"%d" % len(completed))
                    headers = [found for found in start["headers"] if found[0].lower() != b"content-length"]
                    await send({**start, "headers": [*headers, length]})
                    await send({"type": "http.response.body", "body": completed})

        await self._app(scope, receive, send_completed)


def _is_problem(start: Message) -> bool:
    return (b"content-type", MEDIA_TYPE.encode()) in start["headers"]


def _completed(body: bytes, has_token: bool) -> bytes:
    problem = json.loads(body)
    status = problem["status"]
    error_code = problem.get("error_code") or BY_STATUS.get(status, OTHERWISE)
    if status == 401 and not has_token:
        error_code = "no_authorization"
    return json.dumps(problem | {"code": status, "error_code": error_code, "msg": problem["detail"]}).encode()
