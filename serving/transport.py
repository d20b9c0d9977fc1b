"""HTTP between the API and the model server.

Network errors, time-outs, statuses other than 200 and bodies that do not decode are raised as ServingUnavailable.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import aiohttp
import msgspec
import structlog

from configs.settings import ServingSettings
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

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 64
KEEP_ALIVE_SECONDS = 30
"""The server keeps idle connections for longer than this, so that it rarely closes one that is about to be used."""


class _Reply(NamedTuple):
    status: int
    newest_version: str | None  # of the protocol, as the server says; None where it does not
    content: bytes


class ServingTransport:
    """One per event loop. It connects at the first exchange; call `close` in the end."""

    def __init__(self, settings: ServingSettings) -> None:
        self.url = settings.url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._codec = SPOKEN[NEWEST]  # of the version that the server is taken to read
        self._decode_releases = msgspec.json.Decoder(dict[str, ReleaseInfo]).decode

    async def batch(self, request: BatchRequest) -> BatchResponse:
        """Send one batch, once more in an earlier version of the protocol for a server that reads no newer one.

        Raises ServingUnavailable.
        """
        codec = self._codec
        reply = await self._exchange("POST", BATCH_PATH, codec.media_type, codec.encode_request(request))
        agreed = agreed_codec(reply.newest_version)
        if reply.status == 415 and agreed not in (None, codec):
            codec = agreed
            reply = await self._exchange("POST", BATCH_PATH, codec.media_type, codec.encode_request(request))
        response = _decoded(codec.decode_response, _content(reply))
        self._settle(codec if reply.newest_version is None else agreed_codec(reply.newest_version))
        return response

    def _settle(self, codec: Codec | None) -> None:
        """Stay with this version for further batches; the server has just answered in it, or said that it reads it."""
        if codec is not None and codec is not self._codec:
            log.info("protocol of the model server", version=codec.version, url=self.url)
            self._codec = codec

    async def releases(self) -> dict[str, ReleaseInfo]:
        """The loaded releases by tenant. Raises ServingUnavailable."""
        reply = await self._exchange("GET", RELEASES_PATH, "application/json", None)
        return _decoded(self._decode_releases, _content(reply))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, method: str, path: str, media_type: str, body: bytes | None) -> _Reply:
        try:
            try:
                return await self._send(method, path, media_type, body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # A kept connection may be closed while we write to it. A new connection tells whether the server lives.
                return await self._send(method, path, media_type, body)
        except TimeoutError as error:
            raise ServingUnavailable("serving-unavailable", f"no answer within {self._timeout.total} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServingUnavailable("serving-unavailable", str(error) or repr(error)) from error

    async def _send(self, method: str, path: str, media_type: str, body: bytes | None) -> _Reply:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, auto_decompress=False, trust_env=False
            )
        headers = {"content-type": media_type}
        async with self._session.request(method, self.url + path, data=body, headers=headers) as response:
            return _Reply(response.status, response.headers.get(VERSION_HEADER), await response.read())


def _content(reply: _Reply) -> bytes:
    if reply.status != 200:
        raise ServingUnavailable("serving-unavailable", f"status {reply.status}: {reply.content[:200]!r}")
    return reply.content


def _decoded(decode: Callable[[bytes], Message], content: bytes) -> Message:
    """The message. Raises ServingUnavailable for one that another program sent."""
    try:
        return decode(content)
    except msgspec.DecodeError as error:
        raise ServingUnavailable("serving-unavailable", f"an answer of another form: {error}") from error
