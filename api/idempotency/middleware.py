"""`Idempotency-Key`: a POST that is sent again takes effect once, and each time gets its first response.

The response is recorded in the transaction of the effect, so that neither is ever stored without the other. A request
without the header costs one look at its headers. One with the header costs two more statements: before the effect, one
looks for a recorded response and locks the request; after it, one records the response.

A route that calls another service must not hold a connection while it waits. A request to such a route is claimed in a
transaction of its own, and its response is recorded in another when it comes.
"""

import asyncio
import hashlib
import json
import re
import time
from typing import Any
from uuid import uuid4

from fastapi import Request
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.database.engine import Database
from api.database.session import STATE_KEY as DATABASE
from api.http.bodies import BodyParts
from api.http.headers import header
from api.http.principal import STATE_KEY as PRINCIPAL
from api.http.principal import KeyPrincipal, Principal
from api.http.problems import Conflict, Invalid, Problem, problem_response
from api.idempotency.repository import IdempotencyRepository, RecordedResponse

HEADER = b"idempotency-key"
KEY_PATTERN = re.compile(r"[\x20-\x7e]{1,255}")
WAIT_SECONDS = 2.0
"""How long a request waits for an equal one that is still in flight."""
POLL_SECONDS = 0.05
CLAIM_SECONDS = 60.0
"""How long a request to a route that calls another service is taken to be in flight: longer than its time-outs."""
RETRIABLE = (401, 402, 429)
"""Client errors that may not occur at the next attempt. They are not recorded, and neither are server errors."""
SERVER_ERROR = 500
UNRECORDED_FIELDS = "unrecorded_fields"
"""Key of the request's state: fields of the response that must not be recorded."""
NOT_RECORDED = "not_recorded"
"""Key of the request's state: set where the response must not be recorded."""


def unrecorded_fields(*fields: str) -> Any:
    """A dependency for routes whose response holds a secret: these fields are answered once and never recorded."""

    async def note(request: Request) -> None:
        request.scope["state"][UNRECORDED_FIELDS] = fields

    return note


def do_not_record(request: Request) -> None:
    """Keep this request's response from being recorded, whatever its status is."""
    request.scope["state"][NOT_RECORDED] = True


async def never_recorded(request: Request) -> None:
    """A dependency of routes that create nothing: a repeated request is carried out anew, `Idempotency-Key` or not."""
    do_not_record(request)


def is_final(status: int) -> bool:
    """Whether the same request would get this status again, so that the response may be recorded."""
    return status < SERVER_ERROR and status not in RETRIABLE


class Idempotency:
    """ASGI middleware inside the authentication. Requests without a principal pass through unchanged."""

    def __init__(self, app: ASGIApp, database: Database, exempt: tuple[str, ...], calling_out: tuple[str, ...]) -> None:
        """exempt: beginnings of paths on which the header is ignored. calling_out: paths that call another service."""
        self._app = app
        self._database = database
        self._exempt = exempt
        self._calling_out = calling_out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or (key := header(scope, HEADER)) is None:
            await self._app(scope, receive, send)
            return
        principal: Principal | None = scope["state"].get(PRINCIPAL)
        if principal is None or scope["path"].startswith(self._exempt):
            await self._app(scope, receive, send)
            return
        try:
            if KEY_PATTERN.fullmatch(key) is None:
                raise Invalid.field("Idempotency-Key", "1 to 255 printable ASCII characters")
            body, fingerprint = await _read(scope, receive)
            respond = self._respond_claimed if scope["path"] in self._calling_out else self._respond
            response = await respond(scope, principal, key, body, fingerprint)
        except Problem as problem:
            response = problem_response(problem)
        await response(scope, receive, send)

    async def _respond(
        self, scope: Scope, principal: Principal, key: str, body: bytes | memoryview, fingerprint: bytes
    ) -> Response:
        request = _request_of(scope, principal, key)
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            async with AsyncSession(self._database.engine, expire_on_commit=False) as session:
                recorded, locked = await IdempotencyRepository(session, principal.scope).claim(request)
                if recorded is not None:
                    return _replay(recorded, fingerprint)
                if locked and (first := await self._execute(scope, principal, session, request, fingerprint, body)):
                    return first
            # The connection is given back while waiting, so that many equal requests do not use up the pool.
            if time.monotonic() > deadline:
                raise Conflict("A request with this Idempotency-Key is still in flight")
            await asyncio.sleep(POLL_SECONDS)

    async def _respond_claimed(
        self, scope: Scope, principal: Principal, key: str, body: bytes | memoryview, fingerprint: bytes
    ) -> Response:
        """As `_respond`, for a route that calls another service: no connection is held during the call."""
        request, token = _request_of(scope, principal, key), uuid4()
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            async with AsyncSession(self._database.engine, expire_on_commit=False) as session:
                repository = IdempotencyRepository(session, principal.scope)
                recorded, claimed = await repository.claim_for(request, token, CLAIM_SECONDS)
                await session.commit()
            if recorded is not None:
                return _replay(recorded, fingerprint)
            if claimed:
                break
            if time.monotonic() > deadline:
                raise Conflict("A request with this Idempotency-Key is still in flight")
            await asyncio.sleep(POLL_SECONDS)
        response = None
        try:
            response = await _call(self._app, scope, body)
        finally:
            async with AsyncSession(self._database.engine, expire_on_commit=False) as session:
                repository = IdempotencyRepository(session, principal.scope)
                held = await repository.release(request, token)
                if held and response is not None and _is_recorded(response.status_code, scope):
                    await repository.add(request, _user_of(principal), _record(response, scope, fingerprint))
                await session.commit()
        return response

    async def _execute(
        self,
        scope: Scope,
        principal: Principal,
        session: AsyncSession,
        request: bytes,
        fingerprint: bytes,
        body: bytes | memoryview,
    ) -> Response | None:
        """The application's response, recorded and committed.

        None where an equal request committed first; the effect of this one is then rolled back.
        """
        scope["state"][DATABASE] = self._database.joined(session)
        response = await _call(self._app, scope, body)
        if response.status_code >= 400:
            await session.rollback()
        if _is_recorded(response.status_code, scope):
            recorded = _record(response, scope, fingerprint)
            if not await IdempotencyRepository(session, principal.scope).add(request, _user_of(principal), recorded):
                return None
        await session.commit()
        return response


async def _read(scope: Scope, receive: Receive) -> tuple[bytes | memoryview, bytes]:
    """The whole body, and the SHA-256 of query string and body. Raises Invalid where the client disconnects before.

    The hash is computed part by part: for 16 MB at once it would hold up the event loop for 30 ms.
    """
    parts = BodyParts(scope)
    fingerprint = hashlib.sha256(scope["query_string"] + b"\0")
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("The body ended early")
        part = message.get("body", b"")
        parts.add(part)
        fingerprint.update(part)
        if not message.get("more_body", False):
            return parts.whole(), fingerprint.digest()


async def _call(app: ASGIApp, scope: Scope, body: bytes | memoryview) -> Response:
    """The application's response to a request whose body has been read already."""
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


def _request_of(scope: Scope, principal: Principal, key: str) -> bytes:
    """The hash that stands for the request: see `IdempotencyRecord`."""
    return hashlib.sha256("\0".join([*_credential(principal), scope["path"], key]).encode()).digest()


def _user_of(principal: Principal) -> str | None:
    return None if isinstance(principal, KeyPrincipal) else principal.user_id


def _record(response: Response, scope: Scope, fingerprint: bytes) -> RecordedResponse:
    visible = _body_without(response, scope["state"].get(UNRECORDED_FIELDS, ()))
    return RecordedResponse(fingerprint, response.status_code, _headers(response), visible)


def _credential(principal: Principal) -> list[str]:
    if isinstance(principal, KeyPrincipal):
        return ["key", principal.key_id.hex]
    return [
        "user",
        principal.user_id,
        principal.role,
    ]  # a user who is no longer an admin does not get an admin's response


def _is_recorded(status: int, scope: Scope) -> bool:
    is_route = scope.get("route") is not None and status != 405
    return is_route and is_final(status) and NOT_RECORDED not in scope["state"]


def _headers(response: Response) -> list[list[str]]:
    pairs = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in response.raw_headers]
    return [pair for pair in pairs if pair[0] != "content-length"]


def _body_without(response: Response, fields: tuple[str, ...]) -> bytes:
    body = bytes(response.body)
    if not fields or response.status_code >= 400:
        return body
    document = json.loads(body)
    return json.dumps({name: value for name, value in document.items() if name not in fields}).encode()


def _replay(recorded: RecordedResponse, fingerprint: bytes) -> Response:
    if recorded.fingerprint != fingerprint:
        raise Conflict("This Idempotency-Key came with another body before")
    response = Response(recorded.body, recorded.status)
    for name, value in [*recorded.headers, ["Idempotent-Replayed", "true"]]:
        response.headers[name] = value
    return response
