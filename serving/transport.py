"""HTTP between the API and the model server.

Network errors, time-outs, statuses other than 200 and bodies that do not decode are raised as ServingUnavailable. Of
these a server that takes no connection is a ServerAway, since that fails for every tenant.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import structlog

from configs.serving import ServingSettings
from serving.connections import HttpAnswer, KeptConnections, NotConnectedError
from serving.contracts.codec import Codec
from serving.contracts.messages import (
    BATCH_PATH,
    RELEASES_PATH,
    BatchRequest,
    BatchResponse,
    ReleaseInfo,
    ServingUnavailable,
)
from serving.contracts.protocol import NEWEST, SPOKEN, VERSION_HEADER, agreed_codec

Message = TypeVar("Message")

CHECK_SECONDS = 1.0
"""How long a server that answers at all may take to list its releases, which it does beside the batches."""

log = structlog.get_logger(__name__)


class ServerAway(ServingUnavailable):
    """The model server takes no connections."""


class ServingTransport:
    """One per event loop. It connects at the first exchange; call `close` in the end."""

    def __init__(self, settings: ServingSettings) -> None:
        self.url = settings.url.rstrip("/")
        self._timeout = settings.timeout_seconds
        self._connections = KeptConnections(self.url, settings.authorization)
        self._codec = SPOKEN[NEWEST]  # of the version that the server is taken to read
        self._decode_releases = msgspec.json.Decoder(dict[str, ReleaseInfo]).decode

    @property
    def takes_parts(self) -> bool:
        """Whether the server takes a catalogue delta in parts; one of version 1 takes it in one message only."""
        return self._codec.version > 1

    async def batch(self, request: BatchRequest, traceparent: str | None = None) -> BatchResponse:
        """Send one batch, once more in an earlier version of the protocol for a server that reads no newer one.

        traceparent: of the span that the server's is a part of.

        Raises ServingUnavailable.
        """
        headers = None if traceparent is None else {"traceparent": traceparent}
        codec = self._codec
        answer = await self._exchange("POST", BATCH_PATH, codec.media_type, codec.encode_request(request), headers)
        newest = answer.headers.get(VERSION_HEADER)
        agreed = agreed_codec(newest)
        if answer.status == 415 and agreed not in (None, codec):
            self._settle(agreed)
            codec = agreed
            answer = await self._exchange("POST", BATCH_PATH, codec.media_type, codec.encode_request(request), headers)
            newest = answer.headers.get(VERSION_HEADER)
        response = _decoded(codec.decode_response, _content(answer))
        self._settle(codec if newest is None else agreed_codec(newest))
        return response

    def _settle(self, codec: Codec | None) -> None:
        """Stay with this version for further batches; the server has just answered in it, or said that it reads it."""
        if codec is not None and codec is not self._codec:
            log.info("protocol of the model server", version=codec.version, url=self.url)
            self._codec = codec

    async def releases(self) -> dict[str, ReleaseInfo]:
        """The loaded releases by tenant. Raises ServingUnavailable."""
        answer = await self._exchange("GET", RELEASES_PATH, "application/json", b"")
        return _decoded(self._decode_releases, _content(answer))

    async def check(self) -> None:
        """Raises ServingUnavailable where the server does not answer at all, or its releases are not loaded yet."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self.releases()
        except TimeoutError as error:
            raise ServingUnavailable("serving-unavailable", f"no answer within {CHECK_SECONDS} s") from error

    async def close(self) -> None:
        await self._connections.close()

    async def _exchange(
        self, method: str, path: str, media_type: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._connections.exchange(method, path, body, media_type, headers)
        except TimeoutError as error:
            raise ServingUnavailable("serving-unavailable", f"no answer within {self._timeout} s") from error
        except NotConnectedError as error:
            raise ServerAway("serving-unavailable", str(error)) from error
        except OSError as error:
            raise ServingUnavailable("serving-unavailable", str(error) or repr(error)) from error


def _content(answer: HttpAnswer) -> bytes:
    if answer.status != 200:
        raise ServingUnavailable("serving-unavailable", f"status {answer.status}: {answer.body[:200]!r}")
    return answer.body


def _decoded(decode: Callable[[bytes], Message], content: bytes) -> Message:
    """The message. Raises ServingUnavailable for one that another program sent."""
    try:
        return decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ServingUnavailable("serving-unavailable", f"an answer of another form: {error}") from error
