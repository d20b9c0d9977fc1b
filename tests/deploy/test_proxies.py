"""Caddy and nginx, as `configs/deploy/proxy` configures them, before two real API processes that share a Redis."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from api.database.scope import TenantScope
from api.http.bodies import BATCH_LIMIT, LIMIT
from api.http.limits import NO_LIMIT
from api.users.passwords import Passwords
from api.users.service import create_admin
from tests.api.conftest import Tenants
from tests.deploy.proxies import NAME, Proxy, caddy, nginx
from tests.fixtures.clock import within_one_minute
from tests.fixtures.live import ApiProcess, api_process
from tests.fixtures.platform import PATIENCE_SECONDS, free_ports, wait_until
from tests.fixtures.redis import running_redis

pytestmark = pytest.mark.service

StartProxy = Callable[[list[int], Path], AbstractContextManager[Proxy]]
PROXIES: list[StartProxy] = [caddy, nginx]
PER_ADDRESS = 12
CLIENTS = 4
PAUSE_SECONDS = 0.02


@dataclass
class Site:
    """A proxy, and the two API processes behind it, which may be stopped and started."""

    database_url: str
    state: Path
    settings: dict[str, str]
    proxy: Proxy
    ports: list[int]
    running: dict[int, tuple[AbstractContextManager[ApiProcess], ApiProcess]] = field(default_factory=dict)

    def start(self, port: int) -> None:
        context = api_process(self.database_url, self.state, port=port, **self.settings)
        self.running[port] = (context, context.__enter__())

    def stop(self, port: int) -> int:
        """SIGTERM, as systemd and Docker send it. Returns the exit status."""
        context, api = self.running.pop(port)
        api.process.terminate()
        status = api.process.wait(timeout=PATIENCE_SECONDS)
        context.__exit__(None, None, None)
        return status


@pytest.fixture(scope="module")
def processes(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The two API processes, before which each proxy is put in turn."""
    state = tmp_path_factory.mktemp("site")
    with running_redis(state) as redis:
        settings = {"REDIS_URL": redis.url, "RATE_LIMIT_IP": str(PER_ADDRESS), "TRUSTED_PROXIES": "127.0.0.1"}
        site = Site(module_database_url, state, settings, Proxy(0, 0, state), free_ports(2))
        try:
            for port in site.ports:
                site.start(port)
            yield site
        finally:
            for port in list(site.running):
                site.stop(port)


@pytest.fixture(scope="module", params=PROXIES, ids=["caddy", "nginx"])
def site(request: pytest.FixtureRequest, processes: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with request.param(processes.ports, tmp_path_factory.mktemp("proxy")) as proxy:
        processes.proxy = proxy
        yield processes


@pytest.fixture(scope="module")
def admin(module_database_url: str, key: dict[str, str]) -> str:
    """The address of the tenant's administrator."""
    email = "admin@acme.example"
    scope = TenantScope("acme")
    Tenants(module_database_url).run(lambda session: create_admin(session, Passwords(), scope, email, "a pass phrase"))
    return email


@pytest.fixture(scope="module")
def key(module_database_url: str) -> dict[str, str]:
    tenants = Tenants(module_database_url)
    key = tenants.key(tenants.create(), rate_limit=NO_LIMIT)
    with psycopg.connect(module_database_url) as connection:
        connection.execute("INSERT INTO items (tenant_id, id, metadata, version) VALUES ('acme', 'bread', '{}', 0)")
    return key


def test_clients_speak_http_2_over_tls_and_are_led_there(site: Site) -> None:
    with site.proxy.client() as client:
        answer = client.get("/health")
        assert (answer.status_code, answer.text, answer.http_version) == (200, "Healthy", "HTTP/2")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["x-content-type-options"] == "nosniff"
    plain = httpx.get(f"http://{NAME}:{site.proxy.plain_port}/health")
    assert plain.status_code == 308
    assert plain.headers["location"].startswith(f"https://{NAME}")


def test_both_processes_count_one_address_together_and_no_header_changes_it(site: Site) -> None:
    """Requests without a credential count for the client's address, in one Redis.

    Where Redis answers late, on a busy machine, each process counts for itself; then another address tries again.
    """

    def counted_as_one() -> bool:
        address = f"127.{uuid4().int % 200 + 1}.{uuid4().int % 200 + 1}.9"
        with site.proxy.client(address) as client, site.proxy.client(address + "9") as other:
            forged = [{"X-Forwarded-For": f"203.0.113.{number}"} for number in range(PER_ADDRESS + 5)]
            statuses = [client.get("/nothing", headers=each).status_code for each in forged]
            return statuses == [404] * PER_ADDRESS + [429] * 5 and other.get("/nothing").status_code == 404

    wait_until("one count", lambda: within_one_minute(counted_as_one))


def test_the_audit_trail_has_the_clients_address_and_not_the_forged_one(site: Site, admin: str) -> None:
    address = f"127.201.{uuid4().int % 200 + 1}.7"
    with site.proxy.client(address) as client:
        body = {"email": admin, "password": "wrong password"}
        forged = {"X-Forwarded-For": "203.0.113.5", "Forwarded": "for=203.0.113.5", "X-Real-IP": "203.0.113.5"}
        assert client.post("/api/auth/login", json=body, headers=forged).status_code == 401

    def entries() -> set[str]:
        with psycopg.connect(site.database_url) as connection:
            return {ip for (ip,) in connection.execute("SELECT ip FROM audit_entries WHERE ip IS NOT NULL")}

    wait_until("the entry", lambda: address in entries(), 30)
    assert "203.0.113.5" not in entries()


def test_what_is_too_large_gets_an_answer_of_the_apis_form(site: Site, key: dict[str, str]) -> None:
    headers = {**key, "Content-Type": "application/json"}
    # Over HTTP/2 this client reads no answer that comes before it has sent all of the body.
    with site.proxy.client(http2=False) as client:

        def post(path: str, size: int) -> httpx.Response:
            return client.post(path, content=b" " * size, headers=headers)

        refused = [
            post("/api/v1/interactions", LIMIT + 1),
            post("/api/v1/interactions/batch", BATCH_LIMIT + 1),
        ]
        taken = [post("/api/v1/interactions", LIMIT), post("/api/v1/interactions/batch", BATCH_LIMIT)]
    for answer in refused:
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert {"type", "title", "status", "detail"} <= answer.json().keys()
        assert (answer.json()["status"], answer.json()["title"]) == (413, "Content Too Large")
    assert [answer.status_code for answer in taken] == [400, 400]  # by the API: they hold no JSON
    assert all("traceId" in answer.json() for answer in taken)


def test_one_process_is_replaced_and_no_request_fails(site: Site, key: dict[str, str]) -> None:
    """What a client was told to be stored is stored once, and every request was answered."""
    user = f"user-{uuid4().hex}"
    with asking(site, key, user) as statuses:
        port = site.ports[0]
        wait_until("some answers", _more_than(statuses, 30))
        assert site.stop(port) in (0, -15)
        wait_until("answers by the other", _more_than(statuses, 30))
        site.start(port)
        wait_until("answers by both", _more_than(statuses, 30))
    assert set(statuses) == {201}
    with psycopg.connect(site.database_url) as connection:
        (stored,) = connection.execute("SELECT count(*) FROM interactions WHERE user_id = %s", [user]).fetchone() or (
            0,
        )
    assert stored == len(statuses)


@pytest.mark.parametrize("start", PROXIES, ids=["caddy", "nginx"])
def test_without_any_process_the_proxy_answers_in_the_apis_form(start: StartProxy, tmp_path: Path) -> None:
    with start(free_ports(2), tmp_path) as proxy, proxy.client() as client:
        answer = client.get("/health")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["status"] == 503


@contextmanager
def asking(site: Site, key: dict[str, str], user: str) -> Iterator[list[int]]:
    """Clients send interactions one after another, each over one connection; the statuses they got so far."""
    statuses: list[int] = []
    failures: list[Exception] = []
    over = threading.Event()

    def ask() -> None:
        body = {"userId": user, "itemId": "bread", "interactionType": "view"}
        with site.proxy.client() as client:
            while not over.is_set():
                try:
                    statuses.append(client.post("/api/v1/interactions", json=body, headers=key).status_code)
                except httpx.HTTPError as error:
                    failures.append(error)
                over.wait(PAUSE_SECONDS)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    with ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        yield statuses
    assert not failures


def _more_than(statuses: list[int], count: int) -> Callable[[], bool]:
    before = len(statuses)
    return lambda: len(statuses) > before + count
