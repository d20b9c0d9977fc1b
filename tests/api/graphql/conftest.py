"""Callers of `/graphql`, without a model server and beside one."""

from tests.api.recommendations.conftest import films, films_server  # noqa: F401 - fixtures
from tests.fixtures.backend import backend  # noqa: F401 - a fixture
