"""Calls to what a tenant names: only servers on the internet, at the address that was checked, bounded."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.http.outgoing import (
    MAX_BODY,
    Address,
    OutgoingClient,
    OutgoingFailedError,
    OutgoingRefusedError,
    is_public,
)

pytestmark = pytest.mark.anyio
LOOPBACK = [ip_address("127.0.0.1")]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: bytes | Peer, **options: Any) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on loopback. Yields its port, and the heads of the requests that it got."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has hung up
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heads


def resolver(*answers: list[Address]) -> Callable[[str, int], Awaitable[list[Address]]]:
    """A name server whose answers change from one look-up to the next."""
    left = list(answers)

    async def resolve(_host: str, _port: int) -> list[Address]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def anywhere(**options: Any) -> OutgoingClient:
    """A client that may also ask the servers of these tests, on loopback."""
    return OutgoingClient(may_connect=lambda _: True, **options)


def certificate(name: str, folder: Path) -> Path:
    """A key and a certificate of this host that it signs itself, in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def closing(client: OutgoingClient) -> AsyncIterator[OutgoingClient]:
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "fe80::1", "fec0::1", "fc00::1", "fd12::1"),
        *("ff02::1", "2001:db8::1", "100::1", "2002:7f00:1::", "2001:0:7f00:1::", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "3fff::1", "5f00::1", "168.63.129.16"),
    ],
)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"),
        *("0", "0.0.0.0", "[::]", "LOCALHOST", "127.0.0.1.", "[::ffff:7f00:1]"),
    ],
)
async def test_this_machine_is_not_asked_however_it_is_written(host: str) -> None:
    async with server(OK) as (port, heads), closing(OutgoingClient()) as client:
        with pytest.raises((OutgoingRefusedError, OutgoingFailedError)):
            await client.post(f"http://{host}:{port}/", b"{}", {})
        assert heads == []


async def test_one_private_answer_among_public_ones_is_enough_to_refuse() -> None:
    mixed = [ip_address("8.8.8.8"), ip_address("10.0.0.1")]
    async with closing(OutgoingClient(resolve=resolver(mixed))) as client:
        with pytest.raises(OutgoingRefusedError):
            await client.post("http://mixed.example/", b"{}", {})


async def test_the_checked_address_is_the_one_that_is_connected_to() -> None:
    """The name is looked up once. A second answer, which would lead elsewhere, is never asked for."""
    checked: list[Address] = []

    def may_connect(address: Address) -> bool:
        checked.append(address)
        return True

    looked_up = resolver(LOOPBACK, [ip_address("192.0.2.1")])
    async with (
        server(OK) as (port, heads),
        closing(OutgoingClient(may_connect=may_connect, resolve=looked_up)) as client,
    ):
        answer = await client.post(f"http://rebinding.example:{port}/hook?a=1", b"{}", {"Content-Type": "text/x"})
    assert (answer.status, answer.body) == (200, b"ok")
    assert checked == LOOPBACK
    assert heads[0].startswith(b"POST /hook?a=1 HTTP/1.1\r\n")
    assert f"host: rebinding.example:{port}".encode() in heads[0].lower()


async def test_each_call_checks_anew() -> None:
    looked_up = resolver(LOOPBACK, [ip_address("10.0.0.1")])
    is_ours = lambda address: address in LOOPBACK  # noqa: E731
    async with server(OK) as (port, _), closing(OutgoingClient(may_connect=is_ours, resolve=looked_up)) as client:
        assert (await client.post(f"http://a.example:{port}/", b"{}", {})).status == 200
        with pytest.raises(OutgoingRefusedError):
            await client.post(f"http://a.example:{port}/", b"{}", {})


async def test_tls_names_and_verifies_the_host_of_the_url(tmp_path: Path) -> None:
    names: list[str | None] = []
    file = certificate("good.example", tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    serving.sni_callback = lambda _socket, name, _context: names.append(name)
    trusting = ssl.create_default_context(cafile=str(file))
    async with (
        server(OK, ssl=serving) as (port, _),
        closing(anywhere(resolve=resolver(LOOPBACK), context=trusting)) as client,
    ):
        assert (await client.post(f"https://good.example:{port}/", b"{}", {})).status == 200
        with pytest.raises(OutgoingFailedError):
            await client.post(f"https://other.example:{port}/", b"{}", {})
    assert names == ["good.example", "other.example"]


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with server(OK) as (inner, heads):
        moved = f"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{inner}/\r\nContent-Length: 0\r\n\r\n".encode()
        async with server(moved) as (port, _), closing(anywhere()) as client:
            assert (await client.post(f"http://127.0.0.1:{port}/", b"{}", {})).status == 307
    assert heads == []


async def test_time_is_bounded_whether_the_server_is_silent_or_slow() -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    for peer in (silent, slow):
        async with server(peer) as (port, _), closing(anywhere(seconds=0.5)) as client:
            with pytest.raises(OutgoingFailedError, match=r"within 0\.5 s"):
                await client.post(f"http://127.0.0.1:{port}/", b"{}", {})


async def test_an_answer_without_end_is_cut() -> None:
    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    async with server(endless) as (port, _), closing(anywhere(max_answer=10_000, seconds=30)) as client:
        with pytest.raises(OutgoingFailedError, match="more than 10000 bytes"):
            await client.post(f"http://127.0.0.1:{port}/", b"{}", {})


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://example.com/", "gopher://example.com/", "//example.com", "example.com", ""),
        *("http://", "http://user:password@example.com/", "http://example.com:99999/", "http://exa mple.com/"),
        "https://example.com/" + "x" * 3_000,
    ],
)
async def test_other_urls_are_refused(url: str) -> None:
    async with closing(anywhere(resolve=resolver(LOOPBACK))) as client:
        with pytest.raises(OutgoingRefusedError):
            await client.post(url, b"{}", {})


@pytest.mark.parametrize("host", ["a..example", ".example", "a" * 64 + ".example", "xn--"])
async def test_what_is_no_name_ends_a_call_like_a_name_that_nobody_has(host: str) -> None:
    async with closing(OutgoingClient()) as client:
        with pytest.raises((OutgoingFailedError, OutgoingRefusedError)):
            await client.post(f"http://{host}/", b"{}", {})


async def test_names_whose_servers_do_not_answer_hold_up_nothing_but_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def silent(*_: Any, **__: Any) -> list[Any]:
        answers.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    async with closing(OutgoingClient(seconds=0.2)) as client:
        calls = [client.post(f"http://{number}.example/", b"{}", {}) for number in range(40)]
        try:
            failed = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(error) for error in failed} == {OutgoingFailedError}
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 10) == "done"
        finally:
            answers.set()


async def test_a_body_that_is_too_long_is_refused() -> None:
    async with closing(OutgoingClient()) as client:
        with pytest.raises(OutgoingRefusedError):
            await client.post("https://example.com/", b"x" * (MAX_BODY + 1), {})


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(OK) as (proxy, heads), server(OK) as (port, _), closing(anywhere()) as client:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        assert (await client.post(f"http://127.0.0.1:{port}/", b"{}", {})).status == 200
    assert heads == []


async def test_a_header_cannot_smuggle_another() -> None:
    async with server(OK) as (port, heads), closing(anywhere()) as client:
        with pytest.raises((OutgoingFailedError, OutgoingRefusedError)):
            await client.post(f"http://127.0.0.1:{port}/", b"{}", {"X-A": "1\r\nX-B: 2"})
        assert heads == []
