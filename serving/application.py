"""The routes of the model server, as a small ASGI application that reads and writes MessagePack.

`POST /v1/batch` answers a `BatchRequest`. `GET /v1/releases` lists the loaded releases. `GET /metrics` shows metrics to
Prometheus. `serving/turns.py` says where and in which order batches are answered.
"""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog

from configs import spans
from configs.metrics import METRICS_PATH
from serving.answer_cache import AnswerCache
from serving.contracts.codec import Codec, n_items_of
from serving.contracts.messages import BATCH_PATH, RELEASES_PATH, BatchRequest, BatchResponse
from serving.contracts.protocol import BY_MEDIA_TYPE, NEWEST, VERSION_HEADER
from serving.figures import metrics_text
from serving.turns import TooManyWaitingError, Turns

if TYPE_CHECKING:
    from serving.watch import ReleaseWatch

MAX_BODY_BYTES = 128 * 1024 * 1024
"""The API sends a large catalogue delta in small parts. One of protocol version 1 sends it whole."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_NEWEST = (VERSION_HEADER.encode(), str(NEWEST).encode())

log = structlog.get_logger(__name__)


class RefusedRequestError(Exception):
    """A request that is answered with an HTTP error."""

    def __init__(self, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or []


class _Reply(NamedTuple):
    """A response, and the function that logs it."""

    media_type: str
    body: bytes
    log: Callable[[], None] = lambda: None


class BatchApplication:
    """The routes over the releases of a watch. `open` sets the watch when the server starts."""

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self._watch: ReleaseWatch | None = None
        self._turns = Turns()
        self._authorization = b""

    def open(self, watch: "ReleaseWatch", authorization: str | None, cache: AnswerCache | None = None) -> None:
        """authorization: the value that the header `Authorization` of every request must have. Raises ValueError
        without one. cache: of answers; None: every query is computed."""
        if not authorization:
            raise ValueError("the model server answers nobody without a secret")
        self._watch, self._authorization = watch, authorization.encode()
        self._turns = Turns(cache)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            reply = await self._respond(scope, receive)
            await _send(send, 200, reply.media_type, reply.body)
            reply.log()  # after the response, so that no caller waits for the log
        except RefusedRequestError as refused:
            problem = {"type": "about:blank", "status": refused.status, "detail": str(refused)}
            await _send(send, refused.status, "application/problem+json", msgspec.json.encode(problem), refused.headers)

    async def _respond(self, scope: Scope, receive: Receive) -> _Reply:
        if scope["type"] != "http":
            raise RefusedRequestError(400, "only HTTP is supported")
        watch = self._watch
        if watch is None:
            raise RefusedRequestError(503, "the releases are not loaded yet")
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._authorization):
            raise RefusedRequestError(401, "the secret is missing or wrong", [(b"www-authenticate", b"Bearer")])
        match scope["path"], scope["method"]:
            case (path, "POST") if path == BATCH_PATH:
                content_type = headers.get(b"content-type", b"").decode("latin-1")
                codec = BY_MEDIA_TYPE.get(content_type)
                if codec is None:
                    raise RefusedRequestError(415, f"a batch is one of {list(BY_MEDIA_TYPE)}, not {content_type!r}")
                body = await _body(receive, self._max_body_bytes)
                if (traceparent := headers.get(b"traceparent")) is None:
                    return await self._answer(watch, codec, body)
                with spans.answer_to("answer a batch", traceparent.decode("latin-1")):
                    return await self._answer(watch, codec, body)
            case (path, "GET") if path == RELEASES_PATH:
                if not watch.ready and not watch.predictors:  # an API that waits for models goes on waiting
                    raise RefusedRequestError(503, "the releases are not loaded yet")
                infos = {tenant: predictor.info for tenant, predictor in watch.predictors.items()}
                return _Reply("application/json", msgspec.json.encode(infos))
            case (path, "GET") if path == METRICS_PATH:
                infos = {tenant: predictor.info for tenant, predictor in watch.predictors.items()}
                size = await asyncio.to_thread(lambda: watch.size)
                return _Reply(*metrics_text(infos, size))
            case (path, _) if path in (BATCH_PATH, RELEASES_PATH, METRICS_PATH):
                allowed = b"POST" if path == BATCH_PATH else b"GET"
                raise RefusedRequestError(405, "wrong method", [(b"allow", allowed)])
        raise RefusedRequestError(404, "no such route")

    async def _answer(self, watch: "ReleaseWatch", codec: Codec, body: bytes) -> _Reply:
        started = time.perf_counter()
        try:
            request = codec.decode_request(body)
        except (msgspec.DecodeError, RecursionError) as error:  # a ValidationError is a DecodeError
            raise RefusedRequestError(400, f"not a batch: {error}") from error
        predictor = watch.predictors.get(request.tenant_id)
        if predictor is None and not watch.ready:
            raise RefusedRequestError(503, "the releases are not loaded yet")
        try:
            response = (
                BatchResponse("no_release") if predictor is None else await self._turns.answer(predictor, request)
            )
        except TooManyWaitingError as error:
            raise RefusedRequestError(503, str(error)) from error
        encoded = codec.encode_response(response)
        seconds = time.perf_counter() - started
        return _Reply(codec.media_type, encoded, lambda: _log_batch(request, response, seconds))


def _log_batch(request: BatchRequest, response: BatchResponse, seconds: float) -> None:
    if response.status != "ok":
        return
    for query, answer in zip(request.queries, response.answers, strict=True):
        log.info(
            "answered",
            trace_id=query.trace_id,
            tenant_id=request.tenant_id,
            release=response.release,
            items=0 if isinstance(answer, str) else n_items_of(answer),
            error=answer if isinstance(answer, str) else None,
            batch=len(request.queries),
            milliseconds=round(seconds * 1000, 2),
        )


async def _body(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedRequestError(400, "the request ended early")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > max_bytes:
            raise RefusedRequestError(413, f"a batch is at most {max_bytes} bytes")
        if not message.get("more_body", False):
            return b"".join(chunks)


async def _send(
    send: Send, status: int, media_type: str, body: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    own = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode()), _NEWEST]
    await send({"type": "http.response.start", "status": status, "headers": own + (headers or [])})
    await send({"type": "http.response.body", "body": body})
