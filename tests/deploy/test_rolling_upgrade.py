"""`migrate` runs while an API of the version before serves on, and that API works over the new schema."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.database.migrate import head_revision, upgrade
from tests.fixtures.earlier_code import code_before_head, revision_before_head
from tests.fixtures.live import ApiProcess, api_process
from tests.fixtures.platform import wait_until

pytestmark = pytest.mark.service

ADMIN = {"email": "admin@acme.example", "password": "a long enough pass phrase"}


def command(code: Path, database_url: str, state: Path, *arguments: str) -> str:
    """What `python -m api ARGUMENTS` of this code prints."""
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "RECOMMENDAI_STATE_DIR": str(state),
        "PORTAL_PASSWORD": ADMIN["password"],
    }
    result = subprocess.run(
        [sys.executable, "-m", "api", *arguments],
        cwd=code,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_an_api_of_the_version_before_serves_on_through_a_migration(empty_database_url: str, tmp_path: Path) -> None:
    code = code_before_head(tmp_path / "code")
    assert upgrade(empty_database_url, revision_before_head()) == revision_before_head()
    command(code, empty_database_url, tmp_path, "create-tenant", "--id", "acme", "--plan", "unlimited")
    command(code, empty_database_url, tmp_path, "create-admin", "--tenant", "acme", "--email", ADMIN["email"])
    key = command(code, empty_database_url, tmp_path, "create-key", "--tenant", "acme", "--name", "k",
                  "--rate-limit", "none")  # fmt: skip
    with api_process(empty_database_url, tmp_path, root=code, RATE_LIMIT_JWT="10000") as api:
        statuses, over = [], threading.Event()
        worker = threading.Thread(target=lambda: work(api, key, statuses, over))
        worker.start()
        try:
            wait_until("some answers", lambda: len(statuses) > 20)
            assert upgrade(empty_database_url) == head_revision()
            seen = len(statuses)
            wait_until("answers over the new schema", lambda: len(statuses) > seen + 20)
        finally:
            over.set()
            worker.join()
        assert {status for status in statuses if status >= 300} == set()
        assert httpx.get(f"{api.url}/health/ready").json()["database"] == "up"
        token = httpx.post(f"{api.url}/api/auth/login", json=ADMIN).raise_for_status().json()["token"]
        failed = {path: status for path, status in read_everything(api, token) if status >= 500}
        assert failed.keys() <= {"/api/billing/invoices", "/api/billing/subscription"}, failed  # Stripe is not set up


def work(api: ApiProcess, key: str, statuses: list[int], over: threading.Event) -> None:
    """What backends do, again and again."""
    with httpx.Client(base_url=api.url, headers={"X-API-Key": key}, timeout=60) as http:
        number = 0
        while not over.is_set():
            number += 1
            calls: list[tuple[str, dict[str, Any]]] = [
                ("/api/items", {"id": f"item-{number}", "metadata": {"title": "bread"}}),
                ("/api/v1/interactions", {"userId": "ann", "itemId": f"item-{number}", "interactionType": "view"}),
                ("/api/v1/recommend", {"userId": "ann", "count": 3}),
                ("/api/v1/similar", {"itemId": f"item-{number}", "count": 3}),
            ]
            for path, body in calls:
                statuses.append(http.post(path, json=body).status_code)


def read_everything(api: ApiProcess, token: str) -> list[tuple[str, int]]:
    """Every GET route that needs no id, with its status."""
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
        paths = http.get("/openapi.json").raise_for_status().json()["paths"]
        found = [path for path, routes in paths.items() if "get" in routes and "{" not in path]
        assert len(found) > 10
        return [(path, http.get(path).status_code) for path in found if path != "/health/ready"]
