"""Calls to addresses that a tenant names, such as those of its own webhooks.

A tenant must not make this platform ask a server that only the platform reaches: its database, a cloud's metadata
service, a machine of its own network. So the client resolves the name itself, refuses it where any answer is no public
address, and connects to an address that it has checked: a second look-up, which may have another answer (DNS
rebinding), never happens. It follows no redirect, uses no proxy of the environment, and decodes nothing.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore
import httpx

MAX_SECONDS = 5.0
MAX_ANSWER = 64 * 1024
MAX_BODY = 256 * 1024
MAX_URL = 2_048
MAX_ADDRESSES = 4
"""Addresses of one name that are tried, one after the other, within the time of the call."""
MAX_CONNECTIONS = 20

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]

_NO_ANSWER = (OSError, ssl.SSLError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
# A look-up goes on in its thread after the call is given up. In threads of their own, names whose servers do not answer
# hold up other look-ups, and not what the loop's threads do for everybody, such as writing the journal of erasures.
_LOOK_UPS = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="look-up")
_SPECIAL: tuple[IPv4Network | IPv6Network, ...] = (
    *(IPv4Network(network) for network in ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24")),
    *(IPv4Network(network) for network in ("198.18.0.0/15", "240.0.0.0/4")),
    IPv4Network("168.63.129.16/32"),  # Azure's platform, which answers each machine there by this public address
    *(IPv6Network(network) for network in ("::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32")),
    *(IPv6Network(network) for network in ("2002::/16", "3fff::/20", "5f00::/16", "fec0::/10")),
)
"""Special networks of the registries of IANA (RFC 6890), some of which `ipaddress` calls global in some versions; and a
cloud's."""
_HOST = re.compile(rb"[A-Za-z0-9._:-]{1,255}")
"""A name in the form of DNS, or an address."""
_NAT64 = IPv6Network("64:ff9b::/96")


class OutgoingRefusedError(Exception):
    """The URL may not be called. The message says why, and names no address of this network."""


class OutgoingFailedError(Exception):
    """The call got no answer, or one that is too long or too late."""


@dataclass(frozen=True, slots=True)
class OutgoingAnswer:
    """What the server answered. A redirect is an answer like any other."""

    status: int
    body: bytes


def is_public(address: Address) -> bool:
    """Whether the address is that of one machine on the internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return False  # no server is reached by it that is not reached by its own form
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    if any(address in network for network in _SPECIAL if network.version == address.version):
        return False
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


def require_public(url: str) -> None:
    """Raise OutgoingRefusedError where the URL can be refused as it is written. Names are resolved at each call."""
    host = _target(url).host
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:  # a name
        return
    if not is_public(address):
        raise OutgoingRefusedError("the host is not on the internet")


async def look_up(host: str, port: int) -> list[Address]:
    """The addresses of a name, by the system's resolver. Raises OSError."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, ask)
    except UnicodeError as error:  # of an empty label, and of one that is too long
        raise OSError("not a name") from error
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


class OutgoingClient:
    """Calls URLs that tenants name. One per event loop; call `close` when it is not used any more."""

    def __init__(
        self,
        *,
        may_connect: Callable[[Address], bool] = is_public,
        resolve: Resolve = look_up,
        seconds: float = MAX_SECONDS,
        max_answer: int = MAX_ANSWER,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """
        seconds: from the look-up to the last byte of the answer.
        max_answer: bytes of the answer's body.
        context: of TLS; None: the system's authorities.
        """
        self._seconds = seconds
        self._max_answer = max_answer
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context or ssl.create_default_context(),
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=0,  # the next call checks its address anew
            network_backend=_CheckedNetwork(may_connect, resolve),
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> OutgoingAnswer:
        """Send a body. Raises OutgoingRefusedError, OutgoingFailedError."""
        if len(body) > MAX_BODY:
            raise OutgoingRefusedError(f"a body of more than {MAX_BODY} bytes")
        target = _target(url)
        sent = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        sent += [(b"Host", target.netloc), (b"Accept-Encoding", b"identity"), (b"Connection", b"close")]
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._pool.stream(
                    "POST",
                    httpcore.URL(
                        scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
                    ),
                    headers=sent,
                    content=body,
                ) as answer,
            ):
                return OutgoingAnswer(answer.status, await self._read(answer.aiter_stream()))
        except TimeoutError as error:
            raise OutgoingFailedError(f"no answer within {self._seconds:g} s") from error
        except _NO_ANSWER as error:
            raise OutgoingFailedError(f"no answer: {type(error).__name__}") from error

    async def close(self) -> None:
        await self._pool.aclose()

    async def _read(self, parts: AsyncIterator[bytes]) -> bytes:
        body = b""
        async for part in parts:
            body += part
            if len(body) > self._max_answer:
                raise OutgoingFailedError(f"an answer of more than {self._max_answer} bytes")
        return body


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses alone. TLS still names and verifies the host of the URL."""

    def __init__(self, may_connect: Callable[[Address], bool], resolve: Resolve) -> None:
        self._network = httpcore.AnyIOBackend()
        self._may_connect = may_connect
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = list(dict.fromkeys(await self._resolve(host, port)))
        if not addresses or not all(self._may_connect(address) for address in addresses):
            raise OutgoingRefusedError("the host is not on the internet")
        failure: Exception | None = None
        for address in addresses[:MAX_ADDRESSES]:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise OutgoingRefusedError("not a host of the internet")

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def _target(url: str) -> httpx.URL:
    """The URL in its normal form. Raises OutgoingRefusedError."""
    if len(url) > MAX_URL:
        raise OutgoingRefusedError(f"a URL of more than {MAX_URL} characters")
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise OutgoingRefusedError("not a URL") from error
    if target.scheme not in ("http", "https") or not target.raw_host:
        raise OutgoingRefusedError("an http or https URL with a host is needed")
    if _HOST.fullmatch(target.raw_host) is None or not 0 < (target.port or 80) < 65_536:
        raise OutgoingRefusedError("not a URL")
    if target.userinfo:
        raise OutgoingRefusedError("a URL must hold no user name or password")
    return target
