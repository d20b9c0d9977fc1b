"""The application over a real database, and tenants in it."""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import Configuration, create_app
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.keys.service import create_key
from api.tenants.service import create_tenant
from configs import logging as logs
from configs.api import ApiSettings, LimitSettings
from configs.auth import AuthSettings
from configs.billing import BillingSettings
from configs.logging import LogSettings
from configs.postgres import DatabaseSettings
from configs.serving import ServingSettings
from configs.settings import PathSettings
from tests.fixtures import passwords
from tests.fixtures.redis import redis_server

__all__ = ["passwords", "redis_server"]

NOBODY_LISTENS = "http://127.0.0.1:9"
SECRET = "a secret of the tests, of more than 32 bytes"


@dataclass
class Tenants:
    """Makes tenants and keys in a test's database."""

    url: str

    def create(self, tenant_id: str = "acme", plan: str = "unlimited") -> str:
        self._run(lambda session: create_tenant(session, tenant_id, plan))
        return tenant_id

    def key(
        self, tenant_id: str = "acme", scopes: Collection[str] = ("read", "write"), rate_limit: int | None = None
    ) -> dict[str, str]:
        """The header of a fresh key."""
        work = lambda session: create_key(session, TenantScope(tenant_id), "test", scopes, rate_limit)  # noqa: E731
        return {"X-API-Key": self._run(work)[1]}

    def run(self, work: Callable[..., Any]) -> Any:
        """What a service answers that takes a session."""
        return self._run(work)

    def _run(self, work: Callable[..., Any]) -> Any:
        async def run() -> Any:
            database = Database(self.url, pool_min=1)
            try:
                async with transaction(database) as session:
                    return await work(session)
            finally:
                await database.close()

        return asyncio.run(run())


@pytest.fixture
def tenants(database_url: str) -> Tenants:
    return Tenants(database_url)


def configuration_of(url: str, state: Path) -> Configuration:
    """Settings of the API over this database, whatever the environment says. No model server is there."""
    return Configuration(
        paths=PathSettings(state_dir=state),
        database=DatabaseSettings(url=url, pool_min=1),
        api=ApiSettings(cors_origins=(), benchmark_routes=False),
        auth=AuthSettings(jwt_secret=SECRET),
        limits=LimitSettings(per_key=1_000, per_jwt=200, per_ip=60, redis_url=None, trusted_proxies=()),
        serving=ServingSettings(url=NOBODY_LISTENS),
        billing=BillingSettings(api_key=None, webhook_secret=None, api_base=NOBODY_LISTENS),
    )


@pytest.fixture
def configuration(database_url: str, tmp_path: Path) -> Configuration:
    """Settings of the API over this test's database."""
    return configuration_of(database_url, tmp_path)


OpenClient = Callable[..., AbstractContextManager[TestClient]]


@contextmanager
def running(
    configuration: Configuration, adapt: Callable[[FastAPI], None] | None = None, **changes: Any
) -> Iterator[TestClient]:
    """The application with these settings changed; `adapt` may add a route to it first."""
    app = create_app(replace(configuration, **changes))
    if adapt is not None:
        adapt(app)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def open_client(configuration: Configuration) -> OpenClient:
    """`open_client(limits=...)`: the application with other settings; `adapt` may add a route to it first."""
    return lambda **changes: running(configuration, **changes)


@pytest.fixture
def client(open_client: OpenClient) -> Iterator[TestClient]:
    """The running application; its errors are answers, as they are to anybody."""
    with ExitStack() as stack:
        yield stack.enter_context(open_client())


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """What was logged since the last call, decoded."""
    root = logging.getLogger()
    before = structlog.get_config(), root.level
    logs.configure("api", LogSettings(level="INFO", format="json"))
    (ours,) = root.handlers

    def take() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capsys.readouterr().err.splitlines()]

    yield take
    structlog.configure(**before[0])
    root.removeHandler(ours)
    root.setLevel(before[1])
