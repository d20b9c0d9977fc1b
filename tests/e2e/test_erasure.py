"""An erasure through real processes: no log, no event of Dagster and no other file holds the erased user."""

import json
from pathlib import Path

import httpx
import pytest

from pipelines.jobs import LAKE
from pipelines.partitions import TENANT_TAG
from tests.fixtures.platform import Platform
from tests.fixtures.search import files_with

TENANT = "forgetful"
USER = "erasmus-7f3a"
EMAIL = "erasmus@forgetful.example"
LAKE_RUN = ("job", "execute", "-j", LAKE, "--tags", json.dumps({TENANT_TAG: TENANT}), "-m", "pipelines.definitions")


def known_in(platform: Platform, word: str) -> set[Path]:
    """Files of the state folder with the word. PostgreSQL's own are its own, and the journal is there to name users."""
    apart = {platform.paths.postgres, platform.paths.journal}
    children = [child for child in platform.paths.root.iterdir() if child not in apart]
    assert platform.paths.logs in children
    return {child / path for child in children if child.is_dir() for path in files_with(child, word)} | {
        child for child in children if child.is_file() and word.encode() in child.read_bytes()
    }


def test_no_file_of_a_running_installation_keeps_who_was_erased(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(platform.paths.dagster))  # for the command line of Dagster itself
    platform.start("api")
    platform.cli("api", "create-tenant", "--id", TENANT, "--plan", "unlimited")
    key = platform.cli("api", "create-key", "--tenant", TENANT, "--name", "tests", "--rate-limit", "none")
    password = platform.cli("api", "create-admin", "--tenant", TENANT, "--email", "boss@forgetful.example")
    platform.cli("pipelines", "add-tenant", TENANT)
    with httpx.Client(base_url=platform.api_url, headers={"X-API-Key": key}, timeout=30) as backend:
        backend.post("/api/items", json={"id": "a", "metadata": {}}).raise_for_status()
        liked = {"userId": USER, "itemId": "a", "interactionType": "like"}
        backend.post("/api/v1/interactions", json=liked).raise_for_status()
        backend.post("/api/v1/interactions", json={**liked, "userId": "another"}).raise_for_status()
        backend.post("/api/v1/recommend", json={"userId": USER, "count": 3}).raise_for_status()
        refused = backend.post("/api/v1/interactions", json={**liked, "interactionType": USER})
        assert refused.status_code == 400
        login = {"email": "boss@forgetful.example", "password": password}
        token = backend.post("/api/auth/login", json=login).raise_for_status().json()["token"]
    with httpx.Client(
        base_url=platform.api_url, headers={"Authorization": f"Bearer {token}"}, timeout=30
    ) as administrator:
        assert administrator.post("/api/users", json={"id": USER, "email": EMAIL}).status_code == 409
        administrator.put(f"/api/users/{USER}", json={"email": EMAIL, "name": USER}).raise_for_status()
        platform.cli("dagster", *LAKE_RUN)
        assert {path.relative_to(platform.paths.root).parts[0] for path in known_in(platform, USER)} == {"lake"}
        assert administrator.delete(f"/api/users/{USER}").status_code == 204
    platform.cli("dagster", *LAKE_RUN)
    assert known_in(platform, "another") != set()
    assert known_in(platform, USER) == known_in(platform, EMAIL) == set()
