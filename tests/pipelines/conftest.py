"""An installation in a temporary folder over a real database, and a Dagster instance of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr

from configs.settings import DatabaseSettings, PathSettings, PipelineSettings, TrackingSettings
from pipelines.resources import Installation
from tests.feature_store.rows import add_tenant
from tests.fixtures.mlflow_store import mlflow_store

TENANT = "acme"


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
