"""`API_WORKERS`: the API in several processes behind one port."""

from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from api.app import Configuration, create_app
from configs.api import LimitSettings, ServerSettings
from tests.api.conftest import Tenants
from tests.fixtures.clock import within_one_minute
from tests.fixtures.live import api_process
from tests.fixtures.platform import PATIENCE_SECONDS, wait_until
from tests.fixtures.redis import RedisServer

LIMIT = 60


def test_several_processes_need_a_place_that_they_count_requests_in(configuration: Configuration) -> None:
    several = replace(configuration, server=ServerSettings(workers=2))
    with pytest.raises(ValueError, match="API_WORKERS needs REDIS_URL"):
        create_app(several)
    create_app(replace(several, limits=LimitSettings(redis_url=SecretStr("redis://127.0.0.1:9"))))


def test_two_processes_answer_at_one_port_share_limits_and_end_together(
    database_url: str, tmp_path: Path, redis_server: RedisServer, tenants: Tenants
) -> None:
    tenants.create()
    settings = {"API_WORKERS": "2", "REDIS_URL": redis_server.url, "RATE_LIMIT_KEY": str(LIMIT)}
    with api_process(database_url, tmp_path, **settings) as api:
        parent = psutil.Process(api.process.pid)

        def servers() -> list[psutil.Process]:
            return [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]

        wait_until("both processes are up", lambda: api.log.read_text().count("Application startup complete") == 2)
        before = {server.pid: sum(server.cpu_times()[:2]) for server in servers()}
        assert len(before) == 2

        def ask_often() -> list[int]:
            key = tenants.key()
            return [
                httpx.get(f"{api.url}/nothing", headers=key, timeout=PATIENCE_SECONDS).status_code
                for _ in range(LIMIT + 20)
            ]

        assert within_one_minute(ask_often) == [404] * LIMIT + [429] * 20
        assert all(sum(server.cpu_times()[:2]) > before[server.pid] for server in servers())
        children = servers()
        parent.terminate()
        assert api.process.wait(timeout=PATIENCE_SECONDS) == 0
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_when_their_parent_is_killed_the_processes_end_and_the_port_is_free(
    database_url: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = {"API_WORKERS": "2", "REDIS_URL": redis_server.url}
    with api_process(database_url, tmp_path, **settings) as api:
        wait_until("both processes are up", lambda: api.log.read_text().count("Application startup complete") == 2)
        children = psutil.Process(api.process.pid).children()
        assert len(children) >= 2
        api.process.kill()
        api.process.wait(timeout=PATIENCE_SECONDS)
        wait_until("their end", lambda: not any(child.is_running() for child in children))
        port = httpx.URL(api.url).port
    with api_process(database_url, tmp_path, port=port):
        pass
