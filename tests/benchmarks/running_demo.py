"""The demo as `make demo` starts it, for benchmarks: `python -m configs.local.demo` over a state folder that is kept.

The first start trains, later ones do not. Where a demo already runs over the folder, it is used and left running.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from configs.files import write_private
from configs.local.demo import EMAIL
from configs.local.demo import TENANT as DEMO_TENANT
from configs.local.processes import shared_environment
from configs.local.supervision import Supervisor
from configs.postgres import DatabaseSettings
from configs.serving import ServingSettings
from configs.settings import PathSettings
from tests.fixtures.platform import ROOT, free_ports, wait_until

SERVERS = ("API", "SERVING", "DAGSTER", "MLFLOW", "STRIPE")
RATE_LIMIT = 100_000_000
"""Requests a minute of the benchmark's keys: a limit that is counted at every request, and never reached."""
NEVER = "1000000000"
"""New interactions that would start a retraining: none does while something is measured."""
TRAIN_SECONDS = 600.0
"""Per model family: what a tenant's training has where no setting says otherwise."""
START_SECONDS = 4 * TRAIN_SECONDS
READY = "Ctrl-C stops everything"


@dataclass(frozen=True)
class Tenant:
    """A tenant of the demo, and the benchmark's key for it."""

    id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}


class RunningDemo:
    """A demo that answers, and how to reach its programs, its database and its tenants."""

    def __init__(self, paths: PathSettings) -> None:
        self.paths = paths
        lines = (paths.root / "demo.env").read_text().splitlines()
        self.values = dict(line.split("=", 1) for line in lines if line)
        self.api_url, self.serving_url = self.values["API_URL"], self.values["SERVING_URL"]

    @property
    def database_url(self) -> str:
        return DatabaseSettings().resolve(self.paths)

    def cli(self, package: str, *arguments: str, **environment: str) -> str:
        """The standard output of `python -m PACKAGE ARGUMENTS`. Raises CalledProcessError; its errors are shown."""
        own = {"MLFLOW_TRACKING_URI": self.values["MLFLOW_URL"], **environment}
        return subprocess.run(
            [sys.executable, "-m", package, *arguments],
            cwd=ROOT,
            env={**os.environ, **shared_environment(self.paths), **own},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()

    def control(self, action: str, program: str) -> None:
        """`supervisorctl ACTION PROGRAM`, as the README tells an operator. Raises CalledProcessError."""
        configuration = str(self.paths.root / "supervisord.conf")
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", configuration, action, program]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def tenant(self, tenant_id: str = DEMO_TENANT) -> Tenant:
        """A tenant that is there, with a key that has a limit. The key is made once and kept in the state folder."""
        kept = self.paths.root / f"bench-{tenant_id}.key"
        if not kept.exists():
            limit = str(RATE_LIMIT)
            key = self.cli("api", "create-key", "--tenant", tenant_id, "--name", "bench", "--rate-limit", limit)
            write_private(kept, key)
        return Tenant(tenant_id, kept.read_text())

    def imported_tenant(self, tenant_id: str, dataset: str) -> Tenant:
        """A tenant with a data set of its own and models trained on it: imported and trained at the first call."""
        if tenant_id not in self.cli("api", "list-tenants").split():
            self.cli("api", "create-tenant", "--id", tenant_id, "--plan", "unlimited")
        trained = self.paths.root / f"bench-{tenant_id}.trained"
        if not trained.exists():
            self.cli("api", "load-dataset", dataset, "--tenant", tenant_id)
            self.cli("pipelines", "run", "--tenant", tenant_id, TRAIN_MAX_SECONDS=str(TRAIN_SECONDS))
            write_private(trained, dataset)
        wait_until(f"a release of {tenant_id}", lambda: tenant_id in self.releases())
        return self.tenant(tenant_id)

    def releases(self) -> dict[str, Any]:
        """What the model server holds, by tenant."""
        settings = ServingSettings().with_secret(self.paths)
        headers = {"Authorization": str(settings.authorization)}
        answer = httpx.get(f"{self.serving_url}/v1/releases", headers=headers, timeout=60)
        return dict(answer.raise_for_status().json())

    def users(self, tenant: Tenant, count: int) -> list[str]:
        """Ids of the first users with interactions, at most `count`, in a fixed order."""
        query = """
            SELECT user_id FROM interactions WHERE tenant_id = %s
            GROUP BY user_id ORDER BY md5(user_id) LIMIT %s
        """
        with psycopg.connect(self.database_url) as connection:
            return [row[0] for row in connection.execute(query, [tenant.id, count]).fetchall()]

    def admin(self) -> dict[str, str]:
        """Headers of the demo's admin."""
        body = {"email": EMAIL, "password": self.values["ADMIN_PASSWORD"]}
        answer = httpx.post(f"{self.api_url}/api/auth/login", json=body, timeout=60).raise_for_status()
        return {"Authorization": f"Bearer {answer.json()['token']}"}


@contextmanager
def running_demo(state: Path, **environment: str) -> Iterator[RunningDemo]:
    """The demo over this state folder. It is stopped at the end, unless it ran before."""
    state.mkdir(parents=True, exist_ok=True)
    paths = PathSettings(state_dir=state)
    if Supervisor(paths, ROOT).running():
        yield RunningDemo(paths)
        return
    ports = {f"{name}_PORT": str(port) for name, port in zip(SERVERS, free_ports(len(SERVERS)), strict=True)}
    output = state / "demo.log"
    with output.open("w") as file:
        demo = subprocess.Popen(
            [sys.executable, "-m", "configs.local.demo"],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("STRIPE_")},
                **ports,
                "RECOMMENDAI_STATE_DIR": str(state.absolute()),
                "RETRAIN_AFTER_INTERACTIONS": NEVER,
                "DEMO_START_SECONDS": "600",
                **environment,
            },
            stdout=file,
            stderr=file,
        )
    try:
        wait_until("the demo", lambda: demo.poll() is not None or READY in output.read_text(), START_SECONDS)
        if demo.poll() is not None:
            raise RuntimeError(f"the demo ended:\n{output.read_text()}")
        yield RunningDemo(paths)
    finally:
        demo.terminate()
        demo.wait()


def unique(prefix: str) -> str:
    """An id that no earlier run has used."""
    return f"{prefix}-{secrets.token_hex(4)}"
