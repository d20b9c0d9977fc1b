"""HTTP between the API and the model server.

Network errors, time-outs, statuses other than 200 and bodies that do not decode are raised as ServingUnavailable.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp
import msgspec

from configs.settings import ServingSettings
from serving.contracts.messages import (
    BATCH_PATH,
    MEDIA_TYPE,
    RELEASES_PATH,
    BatchRequest,
    BatchResponse,
    ReleaseInfo,
    ServingUnavailable,
)

Message = TypeVar("Message")

MAX_CONNECTIONS = 64
KEEP_ALIVE_SECONDS = 30
"""The server keeps idle connections for longer than this, so that it rarely closes one that is about to be used."""
MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**63)
MAX_FLOAT = int(1.7976931348623157e308)


class ServingTransport:
    """One per event loop. It connects at the first exchange; call `close` in the end."""

    def __init__(self, settings: ServingSettings) -> None:
        self.url = settings.url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(BatchResponse).decode
        self._decode_releases = msgspec.json.Decoder(dict[str, ReleaseInfo]).decode

    async def batch(self, request: BatchRequest) -> BatchResponse:
        """Send one batch. Raises ServingUnavailable."""
        content = await self._exchange("POST", BATCH_PATH, self._pack(request))
        return _decoded(self._decode, content)

    async def releases(self) -> dict[str, ReleaseInfo]:
        """The loaded releases by tenant. Raises ServingUnavailable."""
        content = await self._exchange("GET", RELEASES_PATH, None)
        return _decoded(self._decode_releases, content)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, method: str, path: str, body: bytes | None) -> bytes:
        try:
            try:
                return await self._send(method, path, body)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # A kept connection may be closed while we write to it. A new connection tells whether the server lives.
                return await self._send(method, path, body)
        except TimeoutError as error:
            raise ServingUnavailable("serving-unavailable", f"no answer within {self._timeout.total} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ServingUnavailable("serving-unavailable", str(error) or repr(error)) from error

    async def _send(self, method: str, path: str, body: bytes | None) -> bytes:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, auto_decompress=False, trust_env=False
            )
        async with self._session.request(
            method, self.url + path, data=body, headers={"content-type": MEDIA_TYPE}
        ) as response:
            content = await response.read()
            if response.status != 200:
                raise ServingUnavailable("serving-unavailable", f"status {response.status}: {content[:200]!r}")
            return content

    def _pack(self, request: BatchRequest) -> bytes:
        try:
            return self._encode(request)
        except OverflowError:  # item metadata holds an integer of more than 64 bits, which MessagePack cannot carry
            return self._encode(_within_64_bits(msgspec.to_builtins(request)))


def _decoded(decode: Callable[[bytes], Message], content: bytes) -> Message:
    """The message. Raises ServingUnavailable for one that another program, or another version of the server, sent."""
    try:
        return decode(content)
    except msgspec.DecodeError as error:
        raise ServingUnavailable("serving-unavailable", f"an answer of another form: {error}") from error


def _within_64_bits(value: Any) -> Any:
    """A copy in which integers of more than 64 bits are floats, clipped to the largest finite one."""
    if isinstance(value, dict):
        return {key: _within_64_bits(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_within_64_bits(part) for part in value]
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return float(max(-MAX_FLOAT, min(MAX_FLOAT, value)))
    return value
