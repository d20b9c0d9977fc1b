"""Backends of the recommender's tests, whose people these tests are about."""

from tests.api.recommendations.conftest import backend, films, films_server  # noqa: F401 - they are fixtures
