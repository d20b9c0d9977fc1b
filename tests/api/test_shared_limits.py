"""Two API processes share counts through Redis. A Redis that hangs or is down delays no request."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Tenants
from tests.fixtures.clock import within_one_minute
from tests.fixtures.live import ApiProcess, api_process
from tests.fixtures.platform import wait_until
from tests.fixtures.redis import RedisServer

LIMIT = 40
SECONDS = 0.1
"""Within which every request is answered, whatever Redis does."""


@pytest.fixture
def processes(
    database_url: str, tmp_path: Path, redis_server: RedisServer
) -> Iterator[list[tuple[ApiProcess, httpx.Client]]]:
    with ExitStack() as stack:
        settings = {"REDIS_URL": redis_server.url, "RATE_LIMIT_KEY": str(LIMIT), "LOG_FORMAT": "json"}
        started = [stack.enter_context(api_process(database_url, tmp_path, **settings)) for _ in range(2)]
        yield [(process, stack.enter_context(httpx.Client(base_url=process.url, timeout=10))) for process in started]


def _ask(client: httpx.Client, key: dict[str, str], path: str = "/nothing") -> tuple[int, int, float]:
    """Status, what is left of the limit (-1 where nothing counts), seconds."""
    started = time.perf_counter()
    answer = client.get(path, headers=key)
    return answer.status_code, int(answer.headers.get("x-ratelimit-remaining", -1)), time.perf_counter() - started


def test_processes_share_a_count_and_a_hung_or_dead_redis_holds_up_nobody(
    processes: list[tuple[ApiProcess, httpx.Client]], tenants: Tenants, redis_server: RedisServer
) -> None:
    key = tenants.key(tenants.create())
    clients = [client for _, client in processes]
    for client in clients:
        _ask(client, key)  # the key is known, connections are open

    def ask_in_turn() -> tuple[dict[str, str], list[int]]:
        """A new key, and what is left of its limit after each of six requests."""
        key = tenants.key()
        return key, [_ask(clients[number % 2], key)[1] for number in range(6)]

    other, left = within_one_minute(ask_in_turn)
    assert left == [LIMIT - 1, LIMIT - 2, LIMIT - 3, LIMIT - 4, LIMIT - 5, LIMIT - 6]

    redis_server.hang()
    seen = [_ask(client, other, path) for _ in range(15) for client in clients for path in ("/health", "/nothing")]
    assert {status for status, _, _ in seen} == {200, 404}
    slow = sorted(seconds for *_, seconds in seen)
    assert slow[-len(seen) // 10] < SECONDS, slow  # a tenth may fall to whatever else this machine does
    assert seen[1][1] == LIMIT - 1  # each process counts for itself now
    assert seen[3][1] == LIMIT - 1
    for process, _ in processes:
        assert "redis does not answer" in process.log.read_text()
        assert '"level":"warning"' in process.log.read_text()

    redis_server.resume()
    for process, client in processes:
        wait_until("Redis", lambda: _ask(client, key) and "answers again" in process.log.read_text())  # noqa: B023
    shared = within_one_minute(lambda: [_ask(client, other)[1] for client in clients])
    assert shared[0] - shared[1] == 1

    redis_server.process.kill()
    redis_server.process.wait()
    seen = [_ask(client, other, path) for _ in range(5) for client in clients for path in ("/health", "/nothing")]
    assert {status for status, _, _ in seen} <= {200, 404}
    assert sorted(seconds for *_, seconds in seen)[-3] < SECONDS
