"""Pipelines of two small tenants at once, one of which fails or has no room on its disk."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import psycopg

from configs.local.processes import shared_environment
from feature_store.lake import tenant_folder
from serving.release import list_releases
from tests.benchmarks.faults.disk import NAME, may_mount
from tests.benchmarks.faults.load import FaultRow, under_load
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique
from tests.feature_store.rows import add_interactions, add_items
from tests.fixtures.platform import ROOT, wait_until

GENRES = ("drama", "comedy", "horror")
USERS, EVENTS, ITEMS = 90, 12, 15
"""More than a thousand interactions, without which no model is trained."""
STEPS = (1, 2, 4, 7)
"""Of a user through the items of a genre: without a factor in common with their number, so that no item repeats."""
RUN_SECONDS = 1_200
TRAIN_SECONDS = "20"
SMALL = "8k"
"""A file system that has room for no snapshot of features."""


def two_tenants(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """Both pipelines run at once. A file in the lake of one is damaged: its run fails, the other's release is right."""
    good, bad = small_tenant(demo), small_tenant(demo)
    demo.cli("pipelines", "run", "--tenant", bad.id, TRAIN_MAX_SECONDS=TRAIN_SECONDS)
    before = _releases(demo, bad)
    victim = max(tenant_folder(demo.paths.lake, bad.id).rglob("*.parquet"), key=lambda path: path.stat().st_size)
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    status: dict[str, int] = {}

    def trouble() -> float:
        runs = {each.id: start_run(demo, each, ["--force"]) for each in (good, bad)}
        status.update({name: process.wait(RUN_SECONDS) for name, process in runs.items()})
        victim.write_bytes(whole)
        return time.monotonic()

    row = under_load("two tenants' pipelines at once, one fails", demo, tenant, trouble)
    row.promises |= {
        "the damaged tenant's run fails": status[bad.id] != 0,
        "it publishes nothing": _releases(demo, bad) == before,
        "the other's run succeeds": status[good.id] == 0,
        **release_is_right(demo, good),
        "the damaged tenant's next run succeeds": start_run(demo, bad, ["--force"]).wait(RUN_SECONDS) == 0,
        **release_is_right(demo, bad, "the repaired tenant's"),
    }
    return [row]


def full_disk_of_pipelines(demo: RunningDemo, tenant: Tenant, **_: Any) -> list[FaultRow]:
    """A run whose folder of features has no room fails and publishes nothing; with room, the next one succeeds."""
    if not may_mount():
        return [FaultRow("full disk of pipelines", notes={"not run": "this user may not mount a small file system"})]
    small = small_tenant(demo)
    status: list[int] = []

    def trouble() -> float:
        status.append(start_run(demo, small, before=_without_room(demo.paths.features)).wait(RUN_SECONDS))
        return time.monotonic()

    row = under_load("full disk of pipelines", demo, tenant, trouble)
    row.promises |= {
        "the run fails and says why": status[0] != 0 and "No space left" in _log_of(demo, small).read_text(),
        "it publishes nothing": _releases(demo, small) == [],
        "the run goes on once there is room": start_run(demo, small, ["--resume"]).wait(RUN_SECONDS) == 0,
        **release_is_right(demo, small),
    }
    return [row]


def small_tenant(demo: RunningDemo) -> Tenant:
    """A new tenant with enough events for models. Each user stays within one genre, so there is something to learn."""
    name = unique("small")
    demo.cli("api", "create-tenant", "--id", name, "--plan", "unlimited")
    key = demo.cli("api", "create-key", "--tenant", name, "--name", "bench", "--rate-limit", "none")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with psycopg.connect(demo.database_url) as connection:
        add_items(
            connection, name, {f"{genre}-{n}": {"title": f"{genre} {n}"} for genre in GENRES for n in range(ITEMS)}
        )
        for step in range(EVENTS):
            events = [
                (f"user-{user}", f"{GENRES[user % 3]}-{(user * 7 + step * STEPS[user % len(STEPS)]) % ITEMS}")
                for user in range(USERS)
            ]
            add_interactions(connection, name, events, at=start + timedelta(days=2 * step))
    return Tenant(name, key)


def start_run(
    demo: RunningDemo,
    tenant: Tenant,
    options: Sequence[str] = (),
    before: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[bytes]:
    """`python -m pipelines run` in a process of its own. before: words of a command that runs it."""
    own = {"MLFLOW_TRACKING_URI": demo.values["MLFLOW_URL"], "TRAIN_MAX_SECONDS": TRAIN_SECONDS}
    with _log_of(demo, tenant).open("ab") as log:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "pipelines", "run", "--tenant", tenant.id, *options],
            cwd=ROOT,
            env={**os.environ, **shared_environment(demo.paths), **own, **environment},
            stdout=log,
            stderr=log,
        )


def _log_of(demo: RunningDemo, tenant: Tenant) -> Path:
    return demo.paths.logs / f"bench-run-{tenant.id}.log"


def _without_room(folder: Path) -> list[str]:
    """A command that runs what follows it, with a small file system in the place of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    script = f'set -e; mount -t tmpfs -o size={SMALL} {NAME} {shlex.quote(str(folder))}; exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def _releases(demo: RunningDemo, tenant: Tenant) -> list[str]:
    """All releases of the tenant, the newest first."""
    return list(list_releases(demo.paths.bentoml).get(tenant.id, []))


def release_is_right(demo: RunningDemo, tenant: Tenant, whose: str = "its") -> dict[str, bool]:
    """Whether the newest release serves, and recommends to users of a genre more of it than chance would."""
    found = _releases(demo, tenant)
    if not found:
        return {f"{whose} release is published": False}
    wait_until("the release", lambda: demo.releases().get(tenant.id, {}).get("release") == found[0], 300)
    own = 0
    with httpx.Client(base_url=demo.api_url, headers=tenant.headers, timeout=60) as client:
        answers = [
            client.post("/api/v1/recommend", json={"userId": f"user-{user}", "algorithm": "hybrid", "count": 3})
            for user in range(USERS)
        ]
    for user, answer in enumerate(answers):
        rows = answer.raise_for_status().json()
        own += sum(row["itemId"].startswith(GENRES[user % 3]) for row in rows)
    return {
        f"{whose} release serves": all(answer.headers.get("X-Model-Release") == found[0] for answer in answers),
        f"{whose} release has learned": own > 0.5 * 3 * USERS,
    }
