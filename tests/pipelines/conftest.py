"""An installation in a temporary folder over a real database, and a Dagster instance of its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr

from configs.pipelines import PipelineSettings
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from configs.tracking import TrackingSettings
from pipelines.io_managers import values_folder
from pipelines.resources import Installation
from tests.feature_store.rows import add_tenant
from tests.fixtures.mlflow_store import mlflow_store

TENANT = "acme"
SNAPSHOT = {
    "snapshot_id": "s1",
    "tenant_id": TENANT,
    "positions_id": "p1",
    "catalogue_version": 1,
    "n_users": 3,
    "n_items": 2,
    "n_interactions": 10,
    "first_timestamp": None,
    "last_timestamp": None,
    "created_at": "2026-11-28T00:00:00+00:00",
    "exclude_seen": "all",
}


@pytest.fixture
def installation(database_url: str, tmp_path: Path) -> Installation:
    return Installation(
        paths=PathSettings(state_dir=tmp_path),
        database=DatabaseSettings(url=SecretStr(database_url)),
        pipeline=PipelineSettings(first_model_after=10, retrain_after=5, train_seconds=3),
        tracking=TrackingSettings(uri=mlflow_store(tmp_path)),
    )


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_tenant(connection, TENANT)
        yield connection


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "dagster-home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
        yield instance


def write_values(installation: Installation, **values: Any) -> None:
    """Values of assets as an earlier run would have left them, and the folder of its trained models."""
    for asset, value in values.items():
        path = values_folder(installation.paths) / asset / f"{TENANT}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(value))
    (installation.paths.models / f"tenant={TENANT}").mkdir(parents=True)
