"""Rate limits: whom a request is counted for, what the answer says, and what happens when Redis does not answer."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from starlette.requests import Request
from starlette.testclient import TestClient

from api.http.client import ClientAddress
from api.http.limits import RateLimiter
from api.http.principal import STATE_KEY as PRINCIPAL
from api.http.principal import KeyPrincipal, Principal, TenantInfo, UserPrincipal
from api.http.window_counters import SOCKET_SECONDS, MemoryWindowCounter, RedisWindowCounter
from configs.api import LimitSettings
from tests.api.conftest import OpenClient, Tenants
from tests.fixtures.clock import STOPPED_AT, stop_the_minute
from tests.fixtures.redis import RedisServer

TIGHT = LimitSettings(per_key=3, per_jwt=2, per_ip=2, redis_url=None)
LIMIT = "x-ratelimit-limit"


@pytest.fixture(autouse=True)
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are minutes on the clock: a test that begins in the last seconds of one would see two."""
    stop_the_minute(monkeypatch)


@pytest.fixture
def tight(open_client: OpenClient) -> Iterator[TestClient]:
    with open_client(limits=TIGHT) as client:
        yield client


def test_each_key_has_its_own_count_and_every_answer_says_what_is_left(tight: TestClient, tenants: Tenants) -> None:
    tenants.create()
    first, second = tenants.key(), tenants.key()
    answers = [tight.get("/nothing", headers=first) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [404, 404, 404, 429]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers[LIMIT] for answer in answers} == {"3"}
    assert tight.get("/nothing", headers=second).status_code == 404


def test_only_a_429_says_when_to_come_back(tight: TestClient) -> None:
    answers = [tight.get("/nothing") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [404, 404, 429]
    assert ["retry-after" in answer.headers for answer in answers] == [False, False, True]
    wait, reset = int(answers[2].headers["retry-after"]), int(answers[2].headers["x-ratelimit-reset"])
    assert 1 <= wait <= 60
    assert STOPPED_AT + wait == reset
    assert answers[2].json()["title"] == "Too Many Requests"


def test_failed_credentials_count_for_the_address_and_an_exhausted_address_blocks_no_valid_one(
    tight: TestClient, tenants: Tenants
) -> None:
    tenants.create()
    wrong = {"X-API-Key": "rk_" + "x" * 43}
    answers = [tight.get("/nothing", headers=wrong) for _ in range(3)]
    assert [(answer.status_code, answer.headers[LIMIT]) for answer in answers] == [(404, "2"), (404, "2"), (429, "2")]
    assert tight.get("/nothing", headers=tenants.key()).status_code == 404


def test_a_key_may_carry_its_own_limit_or_none(tight: TestClient, tenants: Tenants) -> None:
    tenants.create()
    own, free = tenants.key(rate_limit=1), tenants.key(rate_limit=0)
    assert [tight.get("/nothing", headers=own).status_code for _ in range(2)] == [404, 429]
    answers = [tight.get("/nothing", headers=free) for _ in range(10)]
    assert {answer.status_code for answer in answers} == {404}
    assert not any(LIMIT in answer.headers for answer in answers)


def test_health_is_not_counted(tight: TestClient) -> None:
    assert {tight.get("/health").status_code for _ in range(10)} == {200}
    assert tight.get("/nothing").headers["x-ratelimit-remaining"] == "1"


@pytest.mark.parametrize("path", ["/healthzzz", "/health/", "/health/ready/", "/health/other", "/healthy"])
def test_what_only_begins_like_health_is_counted(tight: TestClient, path: str) -> None:
    assert [tight.get(path).status_code for _ in range(3)] == [404, 404, 429]
    assert tight.get("/health").status_code == 200
    assert LIMIT not in tight.get("/health/ready").headers


def test_bad_requests_carry_the_limit_too(tight: TestClient) -> None:
    answer = tight.post("/api/auth/login", json={})
    assert (answer.status_code, answer.headers[LIMIT]) == (400, "2")


def test_what_no_server_can_read_is_counted_like_anything_else(tight: TestClient) -> None:
    answers = [tight.get("/nothing?search=%ff") for _ in range(3)]
    assert [(answer.status_code, answer.headers[LIMIT]) for answer in answers] == [(400, "2"), (400, "2"), (429, "2")]
    assert tight.get("/health?search=%ff").status_code == 400


def test_a_path_with_a_slash_too_many_is_a_404(open_client: OpenClient) -> None:
    with open_client() as client:
        for path in ("/api/items/", "/api/items/a%2Fb/"):
            answer = client.get(path, follow_redirects=False)
            assert (answer.status_code, answer.json()["status"]) == (404, 404)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # nobody's word but a proxy's
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.7", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),  # what the client made up is left of what was seen
        ("::ffff:10.0.0.1", "198.51.100.1, ::ffff:10.0.0.7", "198.51.100.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("2001:db8:1:2:3::4", None, "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", None, "203.0.113.9"),
    ],
)
def test_the_address_comes_from_trusted_proxies_only(peer: str, forwarded: str | None, client: str) -> None:
    assert ClientAddress(("10.0.0.0/8",)).of({"client": (peer, 1)}, forwarded) == client


def test_a_line_of_the_clients_own_before_the_proxys_is_not_believed(open_client: OpenClient) -> None:
    limits = TIGHT.model_copy(update={"trusted_proxies": ("10.0.0.0/8",)})
    with open_client(limits=limits) as client:
        proxy = TestClient(client.app, client=("10.0.0.1", 50_000))
        proxy.portal = client.portal  # the running application is in this event loop
        lines = [[("x-forwarded-for", f"9.9.9.{number}"), ("x-forwarded-for", "203.0.113.7")] for number in range(3)]
        assert [proxy.get("/nothing", headers=each).status_code for each in lines] == [404, 404, 429]


def test_scopes_and_identities_do_not_share_a_count() -> None:
    tenant, one, other = TenantInfo("shop", "free", "all"), UUID(int=1), UUID(int=2)
    callers: list[Principal | None] = [
        KeyPrincipal(tenant, one, frozenset()),
        UserPrincipal(tenant, one.hex, "user"),
        KeyPrincipal(tenant, other, frozenset()),
        KeyPrincipal(tenant, one, frozenset()),
        None,
    ]

    async def run() -> list[int | None]:
        limiter = RateLimiter(LimitSettings(per_key=9, per_jwt=9, per_ip=9), MemoryWindowCounter())
        found = [await limiter.hit(_request(caller)) for caller in callers]
        return [status and status.remaining for status in found]

    assert asyncio.run(run()) == [8, 8, 8, 7, 8]


def _request(caller: Principal | None) -> Request:
    return Request({"type": "http", "headers": [], "client": (UUID(int=1).hex, 1), "state": {PRINCIPAL: caller}})


def test_limits_are_declared_as_strings_and_key_functions_of_slowapi() -> None:
    limiter = RateLimiter(LimitSettings(per_ip=7), MemoryWindowCounter())
    key = limiter.caller_key(_request(None))
    assert key == f"address:7:{UUID(int=1).hex}"
    assert limiter.limit_string(key) == "7/minute"


def test_memory_forgets_windows_that_are_over() -> None:
    async def run() -> MemoryWindowCounter:
        counts = MemoryWindowCounter()
        for identity in range(1_000):
            await counts.increment(str(identity), 1, 60)
        assert await counts.increment("7", 1, 60) == 2
        assert await counts.increment("7", 2, 60) == 1
        return counts

    assert sum(len(counter) for counter in asyncio.run(run())._counts.values()) == 1


def test_processes_share_their_counts_through_redis(
    open_client: OpenClient, tenants: Tenants, redis_server: RedisServer
) -> None:
    tenants.create()
    key = tenants.key()
    shared = LimitSettings(per_key=4, redis_url=SecretStr(redis_server.url))
    with open_client(limits=shared) as one, open_client(limits=shared) as other:
        codes = [client.get("/nothing", headers=key).status_code for client in (one, other, one, other, one, other)]
    assert codes == [404, 404, 404, 404, 429, 429]


def test_a_redis_that_hangs_slows_one_request_by_50_ms_and_no_other(
    open_client: OpenClient, tenants: Tenants, redis_server: RedisServer
) -> None:
    tenants.create()
    key = tenants.key()

    def timed(client: TestClient, path: str) -> tuple[int, float]:
        started = time.perf_counter()
        answer = client.get(path, headers=key)
        assert path == "/health" or answer.headers[LIMIT] == "1000"
        return answer.status_code, time.perf_counter() - started

    with open_client(limits=LimitSettings(redis_url=SecretStr(redis_server.url))) as client:
        timed(client, "/nothing")
        redis_server.hang()
        status, seconds = timed(client, "/nothing")
        assert status == 404
        assert seconds < 10  # 50 ms, and what a busy machine adds; the server hangs for good
        rest = [timed(client, path) for path in ("/health", "/nothing") * 20]
    assert {status for status, _ in rest} == {200, 404}
    assert sorted(seconds for _, seconds in rest)[len(rest) // 2] < seconds  # these do not ask it again


def test_while_one_request_waits_for_a_hung_redis_the_event_loop_goes_on(redis_server: RedisServer) -> None:
    async def run() -> tuple[int, int]:
        counts = RedisWindowCounter(redis_server.url, breaker_seconds=30)
        await counts.increment("a", 1, 60)
        redis_server.hang()
        beats = 0

        async def heartbeat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        beating = asyncio.create_task(heartbeat())
        started = time.perf_counter()
        counted = await asyncio.gather(*(counts.increment("a", 1, 60) for _ in range(200)))
        assert time.perf_counter() - started < 200 * SOCKET_SECONDS  # they wait together
        beating.cancel()
        return beats, max(counted)

    beats, counted = asyncio.run(run())
    assert beats > 1  # an idle machine counts about 40 in 50 ms
    assert counted == 200  # memory's


def test_after_the_breaker_one_request_asks_redis_again_and_the_shared_count_goes_on(redis_server: RedisServer) -> None:
    async def run() -> list[int]:
        counts = RedisWindowCounter(redis_server.url, breaker_seconds=0.3)
        seen = [await counts.increment("a", 1, 60) for _ in range(3)]
        redis_server.hang()
        seen.append(await counts.increment("a", 1, 60))  # memory's first
        redis_server.resume()
        seen.append(await counts.increment("a", 1, 60))  # the breaker is open
        await asyncio.sleep(0.4)
        seen.append(await counts.increment("a", 1, 60))  # what Redis got while it hung may count there, once
        await counts.close()
        return seen

    *before, after = asyncio.run(run())
    assert before == [1, 2, 3, 1, 2]
    assert after in (4, 5)


def test_a_redis_that_is_not_there_at_the_start_does_not_stop_the_api(open_client: OpenClient, tenants: Any) -> None:
    tenants.create()
    key = tenants.key()
    with open_client(limits=LimitSettings(redis_url=SecretStr("redis://127.0.0.1:9/0"))) as client:
        assert client.get("/nothing", headers=key).status_code == 404


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("/api/items/batch", {"metadata": {}}),
        ("/api/v1/interactions/batch", {"userId": "ann", "itemId": "tea", "interactionType": "view"}),
    ],
)
def test_a_batch_costs_a_request_per_started_50_rows(
    open_client: OpenClient, tenants: Tenants, path: str, row: dict[str, Any]
) -> None:
    tenants.create()
    with open_client(limits=LimitSettings(per_key=10, redis_url=None)) as client:
        for rows, left in ((1, 9), (50, 9), (51, 8), (500, 0)):
            answer = client.post(path, json=[row] * rows, headers=tenants.key())
            assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, str(left)), rows
        refused = client.post(path, json=[row] * 501, headers=(key := tenants.key()))
        assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
        assert client.get("/nothing", headers=key).status_code == 429
