"""A backend without a model server, and one beside a model server with a small release."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.backend import Backend, backend, running_backend  # noqa: F401 - one is a fixture
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.releases import CATALOGUE_VERSION, TENANT, publish_small, small_dataset


@pytest.fixture(scope="session")
def films_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A model server with the small release of films."""
    with model_server(tmp_path_factory.mktemp("films") / "state") as server:
        publish_small(server.paths.bentoml, tmp_path_factory.mktemp("film-models"))
        server.start(60)
        yield server


@pytest.fixture
def films(open_client: Any, tenants: Any, films_server: ModelServer) -> Iterator[Backend]:
    """A backend whose catalogue is at the version that the release was made of."""
    with running_backend(open_client, tenants, TENANT, serving=films_server.settings) as films:
        items = small_dataset().items
        films.add_items(dict(zip(items.ids, items.metadata, strict=True)))
        films.sql("UPDATE items SET version = 1")
        films.sql("UPDATE catalogues SET version = %s", [CATALOGUE_VERSION])
        films.sql("UPDATE tenants SET exclude_seen = 'none'")
        yield films
