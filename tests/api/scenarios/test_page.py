"""The commands of docs/scenarios.md work where the demo's scenarios are."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg

from api.app import Configuration, create_app
from api.database.scope import TenantScope
from api.users.passwords import Passwords
from api.users.service import create_admin
from configs.local.demo_scenarios import SCENARIOS, create_scenarios
from tests.api.conftest import Tenants
from tests.fixtures.live import served
from tests.fixtures.people import PASSWORD

PAGE = Path(__file__).resolve().parents[3] / "docs" / "scenarios.md"
EMAIL = "admin@demo.example"
FUNCTIONS = ("admin", "ask")


def commands() -> Iterator[list[str]]:
    """Calls of the page's two functions, as a shell splits them, those within $(...) left out."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), flags=re.S)
    for block in blocks[1:]:  # the first one defines the functions
        starts = [match.start() for match in re.finditer(rf"^(?:{'|'.join(FUNCTIONS)}) ", block, flags=re.M)]
        for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
            yield shlex.split(block[start:end].split("\ncurl")[0], comments=True)


def test_the_page_leads_from_an_empty_scenario_to_a_retired_one(configuration: Configuration, tenants: Tenants) -> None:
    key = tenants.key(tenants.create("demo"))
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope("demo"), EMAIL, PASSWORD))
    with served(create_app(configuration)) as url, httpx.Client(base_url=url, timeout=30) as client:
        film = {"id": "313", "metadata": {"title": "Titanic", "genres": ["Drama"], "year": 1997}}
        assert client.post("/api/items", json=film, headers=key).status_code == 201
        for _ in range(2):  # a call that was interrupted is repeated
            create_scenarios(url, EMAIL, PASSWORD)
        login = client.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD}).json()
        admin = {"Authorization": f"Bearer {login['token']}"}
        made = client.get("/api/scenarios", headers=admin).json()["data"]
        assert {each["id"]: each["status"] for each in made} == {each["id"]: each["status"] for each in SCENARIOS}
        seen = []
        for function, first, *rest in commands():
            json = {"content-type": "application/json"}
            if function == "admin":
                path, *body = rest or [""]
                answer = client.request(
                    first, f"/api/scenarios{path}", content="".join(body) or None, headers={**admin, **json}
                )
            else:
                body = ["".join(rest).replace("$ID", "00000000-0000-7000-8000-000000000000")]
                answer = client.post(f"/api/v1/{first}", content=body[0], headers={**key, **json})
                seen.append(answer.headers.get("X-Scenario"))
            assert answer.is_success, (function, first, rest, answer.text)
        assert seen[0] == "weekend@2"
        assert client.get("/api/scenarios/weekend", headers=admin).json()["status"] == "archived"
    with psycopg.connect(tenants.url) as connection:
        assert connection.execute(
            "SELECT count(*) FROM scenario_versions WHERE scenario_id = 'weekend'"
        ).fetchone() == (3,)
