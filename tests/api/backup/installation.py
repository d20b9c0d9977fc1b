"""An installation with something in each of its stores, and its commands."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from api.cli import all_commands
from api.database.engine import role_of
from api.database.migrate import upgrade
from api.database.scope import TenantScope
from api.users.passwords import Passwords
from api.users.service import create_admin
from configs.files import kept_secret, write_private
from configs.settings import PathSettings
from feature_store import columns as c
from feature_store.exports import export_interactions, export_items
from feature_store.lake import TenantLake
from pipelines.instance import open_instance
from pipelines.partitions import TENANTS
from tests.api.conftest import Tenants
from tests.feature_store.rows import add_interactions, add_items
from tests.fixtures.folders import open_folder
from tests.fixtures.mlflow_store import mlflow_store
from tests.fixtures.platform import ROOT, wait_until
from training.tracking.mlflow_store import Tracking

TENANT, DELETED = "acme", "gone"
STAYS, ERASED, LATER = "ann-52b1", "ben-7f3a", "cy-90cc"
ADMIN = "boss@acme.example"
PASSWORD = "correct horse battery staple 7"
RELEASE = "20250101-000000-000000"
SECRET = "a secret of the tests, of more than 32 bytes"
DROPPED = ("DATABASE_URL", "DATABASE_OWNER_URL", "POSTGRES_PORT", "JOURNAL_COPY_DIR", "MLFLOW_TRACKING_URI")
"""What of this process's environment is not the installation's."""


@dataclass
class Place:
    """A state folder and its database."""

    paths: PathSettings
    url: str
    owner_url: str

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            done = connection.execute(query.encode(), parameters)
            return done.fetchall() if done.description else []

    def interact(self, *users: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for user in users:
                connection.execute(
                    "INSERT INTO users (tenant_id, id) VALUES (%s, %s) ON CONFLICT DO NOTHING", (TENANT, user)
                )
            add_interactions(connection, TENANT, [(user, "i1") for user in users])

    def export(self) -> None:
        export_interactions(self.url, self.paths.lake, TENANT)

    def in_lake(self) -> list[str]:
        files = TenantLake(self.paths.lake, TENANT).interaction_files()
        return sorted(user for file in files for user in pq.read_table(file).column(c.USER_ID).to_pylist())


def command(*arguments: str, state: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python -m api ...` with these settings."""
    return subprocess.run(
        [sys.executable, "-m", "api", *arguments],
        cwd=ROOT,
        env=settings_of(state, environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def refusal(*arguments: str, state: Path, **environment: str) -> str:
    """What such a command says that must fail, called in this process."""
    settings = dict.fromkeys(DROPPED) | {"RECOMMENDAI_STATE_DIR": str(state)} | environment
    done = CliRunner().invoke(all_commands(), arguments, env=settings, catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (1, "")
    return done.stderr


def settings_of(state: Path, more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED}
    return {**kept, "POSTGRES_SHARED_BUFFERS": "16MB", "RECOMMENDAI_STATE_DIR": str(state), **more}


@contextmanager
def bundled(state: Path) -> Iterator[Place]:
    """The bundled server over a state folder, while the block lasts."""
    paths = PathSettings(state_dir=state)
    paths.database_url_file.unlink(missing_ok=True)
    environment = settings_of(state, {"POSTGRES_OPTIONS": "fsync=off"})
    owner = subprocess.Popen([sys.executable, "-m", "api", "postgres"], cwd=ROOT, env=environment)
    try:
        wait_until("PostgreSQL", lambda: paths.database_url_file.exists() or owner.poll() is not None)
        owner_url = paths.database_owner_url_file.read_text().strip()
        yield Place(paths, paths.database_url_file.read_text().strip(), owner_url)
    finally:
        owner.terminate()
        owner.wait(60)


@contextmanager
def installation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An installation with two tenants, users, a lake, a release, an experiment, a history and secrets."""
    monkeypatch.setenv("DAGSTER_HOME", "")  # opening an instance sets it
    parent = open_folder("backup")
    state = parent / "state"
    state.mkdir(mode=0o755)
    try:
        with bundled(state) as place:
            fill(place)
            yield place
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def fill(place: Place) -> None:
    role = role_of(place.url)
    upgrade(place.owner_url, grant_to=None if role == role_of(place.owner_url) else role)
    tenants, paths = Tenants(place.url), place.paths
    tenants.create(TENANT)
    tenants.create(DELETED)
    tenants.run(lambda session: create_admin(session, Passwords(), TenantScope(TENANT), ADMIN, PASSWORD))
    with psycopg.connect(place.url, autocommit=True) as connection:
        add_items(connection, TENANT, {"i1": {"title": "one"}})
        connection.execute("INSERT INTO subscriptions (tenant_id, customer_id) VALUES (%s, 'cus_1')", (TENANT,))
    place.interact(STAYS, ERASED)
    place.export()
    export_items(place.url, paths.lake, TENANT)
    for tenant in (TENANT, DELETED):
        folder = paths.bentoml / "models" / f"release-{tenant}"
        (folder / RELEASE).mkdir(parents=True)
        (folder / RELEASE / "model.json").write_text("{}")
        (folder / "latest").write_text(RELEASE)
    paths.mlflow.mkdir()
    tracking = Tracking(mlflow_store(paths.mlflow), paths.mlflow / "artifacts")
    run = tracking.client.create_run(tracking.experiment_id(TENANT))
    tracking.client.log_text(run.info.run_id, "measured", "note.txt")
    with open_instance(paths) as instance:
        instance.add_dynamic_partitions(TENANTS, [TENANT])
    kept_secret(paths.serving_secret_file)
    paths.rejects.mkdir()
    rejected = f"{TENANT}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.jsonl"
    write_private(paths.rejects / rejected, json.dumps({"user": ERASED}) + "\n" + json.dumps({"user": STAYS}) + "\n")
