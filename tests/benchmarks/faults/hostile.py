"""Hostile requests, with credentials and without: valid requests of every route that a seeded chance has mutated.

They come to another API process, as a tenant of their own, so that what they change harms no demo. Clients of the
demo's tenant ask the same process meanwhile.
"""

import asyncio
import json
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.reliability.answers import CUT_OFF
from tests.benchmarks.reliability.api_processes import api_beside
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique
from tests.fixtures import nasty
from tests.fixtures.people import PASSWORD
from tests.fixtures.platform import free_ports
from tests.fixtures.valid_bodies import bodies

SEED = 14
CONNECTIONS = 8
LARGEST = nasty.MEGABYTE
"""Bytes of the largest body: larger ones would measure the network."""
MOST_FINDINGS = 20
ANSWER_SECONDS = 60.0
LEAST_RATE = 50.0
"""Hostile requests a second that are expected: where fewer are answered, the fault ends with a broken promise."""
SPARED = ("/auth/v1/logout", "/api/recommendations/generate", "/api/exports")
"""Routes that end the credential or start runs of pipelines."""
GONE_BY_NATURE = ("PUT /auth/v1/user",)
"""A new password would end the credential."""
PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass
class Operations:
    """What can be asked, and with what."""

    routes: list[tuple[str, str, bool, list[str]]]  # method, path, whether it needs a credential, query parameters
    valid: dict[str, list[Any]]  # bodies, by "METHOD /path"
    credentials: list[dict[str, str]]


@dataclass
class HostileAnswers:
    """What came back."""

    statuses: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    server_errors: int = 0
    unavailable: int = 0
    cut_off: int = 0
    let_in: int = 0  # a 2xx without a credential, of a route that needs one
    findings: list[str] = field(default_factory=list)

    def take(self, request: "HostileRequest", status: int, body: bytes) -> None:
        self.sent += 1
        self.statuses[str(status)] += 1
        self.server_errors += status >= 500 and status != 503
        self.unavailable += status == 503
        self.cut_off += status == CUT_OFF
        refused = b'"UNAUTHORIZED"' in body  # as GraphQL says it, with status 200
        let_in = request.is_stranger and request.needs_credential and 200 <= status < 300 and not refused
        self.let_in += let_in
        if (let_in or status >= 500 or status == CUT_OFF) and len(self.findings) < MOST_FINDINGS:
            self.findings.append(f"{status} to {request.content[:300]!r}: {body[:200]!r}")


@dataclass(frozen=True)
class HostileRequest:
    """One request as it goes over the wire."""

    content: bytes
    needs_credential: bool
    is_stranger: bool


def hostile_requests(demo: RunningDemo, tenant: Tenant, requests: int, **_: Any) -> list[FaultRow]:
    """No 5xx, nobody let in without a credential, and nothing else is disturbed."""
    enemy = unique("hostile")
    demo.cli("api", "create-tenant", "--id", enemy, "--plan", "unlimited")
    email = f"{enemy}@example.com"
    demo.cli("api", "create-admin", "--tenant", enemy, "--email", email, PORTAL_PASSWORD=PASSWORD)
    key = demo.cli("api", "create-key", "--tenant", enemy, "--name", "hostile", "--rate-limit", "none")
    limits = {"RATE_LIMIT_KEY": "1000000000", "RATE_LIMIT_JWT": "1000000000", "RATE_LIMIT_IP": "1000000000"}
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    found = HostileAnswers()
    with api_beside(demo, port, REGISTRATION_TENANT=enemy, **limits):
        login = httpx.post(f"{url}/api/auth/login", json={"email": email, "password": PASSWORD}, timeout=60)
        token = login.raise_for_status().json()["token"]
        operations = _operations(url, [{"X-API-Key": key}, {"Authorization": f"Bearer {token}"}])

        def trouble() -> float:
            deadline = time.monotonic() + ANSWER_SECONDS + requests / LEAST_RATE
            sending = _send_all(url, operations, requests, found, deadline)
            thread = threading.Thread(target=lambda: asyncio.run(sending))
            thread.start()
            thread.join()
            return time.monotonic()

        row = under_load(f"{requests} hostile requests", demo, tenant, trouble, url=url)
    row.server_errors += found.server_errors
    row.cut_off += found.cut_off
    row.wrong += found.let_in
    row.notes |= {"statuses": dict(sorted(found.statuses.items())), "findings": found.findings}
    row.promises |= {
        "no 5xx but 503": row.server_errors == 0,
        "nobody let in without a credential": found.let_in == 0,
        "every hostile request answered": found.cut_off == 0 and found.sent == requests,
    }
    return [row]


def _operations(url: str, credentials: list[dict[str, str]]) -> Operations:
    """Every operation of the API that is running."""
    routes = []
    for path, described in httpx.get(f"{url}/openapi.json", timeout=60).raise_for_status().json()["paths"].items():
        for method, operation in described.items():
            name = f"{method.upper()} {path}"
            if path.startswith(SPARED) or name in GONE_BY_NATURE or "responses" not in operation:
                continue
            parameters = operation.get("parameters", [])
            query = [each["name"] for each in parameters if each.get("in") == "query"]
            routes.append((method.upper(), path, bool(operation.get("security")), query))
    ids = {"user_id": "u1", "item_id": "i1", "recommendation_id": "0198c0de-0000-7000-8000-000000000000"}
    return Operations(routes, bodies(ids), credentials)


class Mutator:
    """Makes requests, the same for the same seed."""

    def __init__(self, operations: Operations, host: str, seed: int = SEED) -> None:
        self._operations = operations
        self._host = host
        self._random = random.Random(seed)
        self._whole = [each for each in nasty.BODIES.values() if len(each[0]) <= LARGEST]
        self._replaced = {
            name: [content for body in valid for *_, content in nasty.with_each_value_replaced(body)]
            for name, valid in operations.valid.items()
        }

    def request(self) -> HostileRequest:
        chance = self._random
        method, path, needs_credential, query = chance.choice(self._operations.routes)
        name = f"{method} {path}"
        path = PARAMETER.sub(lambda _: self._id(), path)
        if query and chance.random() < 0.7:
            chosen = chance.sample(query, chance.randint(1, min(3, len(query))))
            path += "?" + "&".join(f"{each}={self._query_value()}" for each in chosen)
        headers: dict[str, str] = {"Host": self._host}
        is_stranger = chance.random() < 0.4
        headers |= self._false_credential() if is_stranger else chance.choice(self._operations.credentials)
        if chance.random() < 0.1:
            headers["Idempotency-Key"] = chance.choice(["x" * 300, "a", "0" * 64, "é", "' --"])
        if chance.random() < 0.05:
            headers["X-Forwarded-For"] = chance.choice(["1.2.3.4, x", "::1", "," * 100, "127.0.0.1"])
        if chance.random() < 0.02:
            headers["X-Long"] = "x" * 7_000
        body, media_type = self._body(name) if method != "GET" or chance.random() < 0.05 else (b"", None)
        if media_type is not None:
            headers["Content-Type"] = media_type
        headers["Content-Length"] = str(len(body))
        head = "".join(f"{each}: {value}\r\n" for each, value in headers.items())
        content = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body
        return HostileRequest(content, needs_credential, is_stranger)

    def _id(self) -> str:
        raw = self._random.random() < 0.3
        if raw:
            return self._random.choice(list(nasty.RAW_IDS.values()))
        return quote(self._random.choice([*nasty.IDS.values(), "u1", "i1"]), safe="")

    def _query_value(self) -> str:
        text = self._random.choice(list(nasty.VALUES.values()))[:2_000]
        return quote(text.strip('"'), safe="") if self._random.random() < 0.9 else "%FF%00"

    def _false_credential(self) -> dict[str, str]:
        return self._random.choice(
            [
                {},
                {"X-API-Key": "rk_" + "A" * 43},
                {"X-API-Key": "'; DROP TABLE api_keys; --"},
                {"Authorization": "Bearer " + "x" * 200},
                {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJib3NzIn0."},
                {"Authorization": "Basic Og=="},
                {"Authorization": "Bearer \t"},
            ]
        )

    def _body(self, name: str) -> tuple[bytes, str | None]:
        chance = self._random
        replaced, valid = self._replaced.get(name, []), self._operations.valid.get(name, [])
        kind = chance.random()
        if not valid or valid == [None] or kind < 0.15:
            return chance.choice(self._whole)
        if replaced and kind < 0.7:
            return chance.choice(replaced), nasty.JSON
        text = bytearray(json.dumps(chance.choice(valid)).encode())
        if kind < 0.85:
            return bytes(text), nasty.JSON
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(text))
            text[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            if not text:
                break
        return bytes(text), chance.choice([nasty.JSON, "application/json; charset=utf-16", "text/plain"])


async def _send_all(url: str, operations: Operations, count: int, found: HostileAnswers, deadline: float) -> None:
    """Send until all are answered, or the deadline by the monotonic clock is over."""
    place = urlsplit(url)
    mutator = Mutator(operations, place.netloc)
    left = count

    async def client() -> None:
        nonlocal left
        streams = None
        while left > 0 and time.monotonic() < deadline:
            left -= 1
            request = mutator.request()
            status, body = CUT_OFF, b""
            for _attempt in range(2):  # once more where a kept connection turns out to be closed
                kept = streams is not None
                streams = streams or await asyncio.open_connection(place.hostname, place.port)
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        status, body, stays = await _exchange(*streams, request.content)
                except (OSError, asyncio.IncompleteReadError, TimeoutError):
                    status, body, stays = CUT_OFF, b"", False
                if not stays:
                    streams[1].close()
                    streams = None
                if status != CUT_OFF or not kept:
                    break
            found.take(request, status, body)
        if streams is not None:
            streams[1].close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes
) -> tuple[int, bytes, bool]:
    """Status and body of the answer, and whether the connection stays open."""
    writer.write(content)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:] if line]
    fields = {name.strip().lower(): value.strip() for name, _, value in lines}
    body = b""
    if b"content-length" in fields:
        body = await reader.readexactly(int(fields[b"content-length"]))
    elif fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    return int(head.split(b" ", 2)[1]), body, fields.get(b"connection", b"").lower() != b"close"
