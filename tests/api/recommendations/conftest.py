"""A backend without a model server, and one beside a model server with a small release."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from serving.contracts.messages import ALGORITHMS, Algorithm
from tests.fixtures.backend import Backend, backend, running_backend  # noqa: F401 - one is a fixture
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.releases import CATALOGUE_VERSION, FAMILIES, publish_small, small_dataset


@pytest.fixture(scope="session")
def films_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with model_server(tmp_path_factory.mktemp("films") / "state") as server:
        server.start()
        yield server


@pytest.fixture
def films(open_client: Any, tenants: Any, films_server: ModelServer, tmp_path: Path) -> Iterator[Backend]:
    """A backend with a small release, whose catalogue is at the version that the release was made of."""
    with _running_films(open_client, tenants, films_server, tmp_path, FAMILIES) as films:
        yield films


@pytest.fixture
def all_families(open_client: Any, tenants: Any, films_server: ModelServer, tmp_path: Path) -> Iterator[Backend]:
    """The same with a model of every family that can be asked for."""
    with _running_films(open_client, tenants, films_server, tmp_path, ALGORITHMS) as films:
        yield films


@contextmanager
def _running_films(
    open_client: Any, tenants: Any, server: ModelServer, work: Path, families: tuple[Algorithm, ...]
) -> Iterator[Backend]:
    """The tenant is this test's own: the server remembers the newest catalogue that it saw of one."""
    tenant_id = f"films-{uuid4().hex[:8]}"
    release = publish_small(server.paths.bentoml, work / "models", tenant_id, families=families)
    server.await_release(tenant_id, release)
    with running_backend(open_client, tenants, tenant_id, serving=server.settings) as films:
        items = small_dataset().items
        films.add_items(dict(zip(items.ids, items.metadata, strict=True)))
        films.sql("UPDATE items SET version = 1")
        films.sql("UPDATE catalogues SET version = %s", [CATALOGUE_VERSION])
        films.sql("UPDATE tenants SET exclude_seen = 'none'")
        yield films
