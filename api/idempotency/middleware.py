"""`Idempotency-Key`: a POST that is sent again has its effect once and its first answer every time.

The answer is kept in the transaction of the effect, so that there is never the one without the other. A request
without the header costs a look at its headers; one with it costs a statement before its effect, which finds the answer
or claims the request, and one after, which keeps the answer.
"""

import asyncio
import hashlib
import json
import re
import time
from typing import Any

from fastapi import Request
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.database.engine import Database
from api.database.session import STATE_KEY as DATABASE
from api.http.headers import header
from api.http.principal import STATE_KEY as PRINCIPAL
from api.http.principal import KeyPrincipal, Principal
from api.http.problems import Conflict, Invalid, Problem, problem_response
from api.idempotency.repository import Kept, KeptAnswerRepository

HEADER = b"idempotency-key"
FORM = re.compile(r"[\x20-\x7e]{1,255}")
PATIENCE_SECONDS = 2.0
"""How long a request waits for its twin, which is still in flight."""
POLL_SECONDS = 0.05
UNKEPT = (401, 402, 429)
"""Client errors that another day may cure, as server errors may: the same request is then tried anew."""
SERVER_ERROR = 500
WITHHELD = "withheld"
NOT_KEPT = "not kept"


def withhold(*fields: str) -> Any:
    """A dependency of routes whose answer holds a secret: these fields of it are shown once and never replayed."""

    async def note(request: Request) -> None:
        request.scope["state"][WITHHELD] = fields

    return note


def do_not_keep(request: Request) -> None:
    """Have this request's answer not kept, whatever its status: it made nothing, or another day may cure it."""
    request.scope["state"][NOT_KEPT] = True


def may_be_kept(status: int) -> bool:
    """Whether an answer of this status stays what it is."""
    return status < SERVER_ERROR and status not in UNKEPT


class Idempotency:
    """ASGI middleware, inside of the credentials: a request without a principal is none of its business."""

    def __init__(self, app: ASGIApp, database: Database, exempt: tuple[str, ...]) -> None:
        self._app = app
        self._database = database
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or (key := header(scope, HEADER)) is None:
            await self._app(scope, receive, send)
            return
        principal: Principal | None = scope["state"].get(PRINCIPAL)
        if principal is None or scope["path"].startswith(self._exempt):
            await self._app(scope, receive, send)
            return
        try:
            if FORM.fullmatch(key) is None:
                raise Invalid.field("Idempotency-Key", "1 to 255 printable ASCII characters")
            body = await _read(receive)
            answer = await self._answer(scope, principal, key, body)
        except Problem as problem:
            answer = problem_response(problem)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, principal: Principal, key: str, body: bytes) -> Response:
        request = hashlib.sha256("\0".join([*_credential(principal), scope["path"], key]).encode()).digest()
        fingerprint = hashlib.sha256(scope["query_string"] + b"\0" + body).digest()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            async with AsyncSession(self._database.engine, expire_on_commit=False) as session:
                kept, claimed = await KeptAnswerRepository(session, principal.scope).claim(request)
                if kept is not None:
                    return _replay(kept, fingerprint)
                if claimed and (answer := await self._first(scope, principal, session, request, fingerprint, body)):
                    return answer
            # Nothing is held while waiting, so that a crowd of twins cannot keep the connections from others.
            if time.monotonic() > deadline:
                raise Conflict("A request with this Idempotency-Key is still in flight")
            await asyncio.sleep(POLL_SECONDS)

    async def _first(
        self,
        scope: Scope,
        principal: Principal,
        session: AsyncSession,
        request: bytes,
        fingerprint: bytes,
        body: bytes,
    ) -> Response | None:
        """The answer of the application, kept and committed; None where a twin was quicker, without any effect."""
        state = scope["state"]
        state[DATABASE] = self._database.joined(session)
        answer = await _call(self._app, scope, body)
        if answer.status_code >= 400:
            await session.rollback()
        if _is_kept(answer.status_code, scope):
            user_id = None if isinstance(principal, KeyPrincipal) else principal.user_id
            kept = Kept(fingerprint, answer.status_code, _headers(answer), _without(answer, state.get(WITHHELD, ())))
            if not await KeptAnswerRepository(session, principal.scope).keep(request, user_id, kept):
                return None
        await session.commit()
        return answer


async def _read(receive: Receive) -> bytes:
    """The whole body. Raises Invalid where the client went away before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("The body ended early")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _call(app: ASGIApp, scope: Scope, body: bytes) -> Response:
    """The application's answer to a body that was read already."""
    status, headers, parts = 500, [], []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], message["headers"]
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    response = Response(b"".join(parts), status)
    response.raw_headers = list(headers)
    return response


def _credential(principal: Principal) -> list[str]:
    if isinstance(principal, KeyPrincipal):
        return ["key", principal.key_id.hex]
    return ["user", principal.user_id, principal.role]  # what an admin was told is not for who is none any more


def _is_kept(status: int, scope: Scope) -> bool:
    is_route = scope.get("route") is not None and status != 405
    return is_route and may_be_kept(status) and NOT_KEPT not in scope["state"]


def _headers(answer: Response) -> list[list[str]]:
    pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.raw_headers]
    return [pair for pair in pairs if pair[0] != "content-length"]


def _without(answer: Response, fields: tuple[str, ...]) -> bytes:
    body = bytes(answer.body)
    if not fields or answer.status_code >= 400:
        return body
    document = json.loads(body)
    return json.dumps({name: value for name, value in document.items() if name not in fields}).encode()


def _replay(kept: Kept, fingerprint: bytes) -> Response:
    if kept.fingerprint != fingerprint:
        raise Conflict("This Idempotency-Key came with another body before")
    response = Response(kept.body, kept.status)
    for name, value in [*kept.headers, ["Idempotent-Replayed", "true"]]:
        response.headers[name] = value
    return response
