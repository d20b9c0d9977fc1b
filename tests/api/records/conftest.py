"""The backends of the tests of recommendations, whose records these tests read."""

from tests.api.recommendations.conftest import backend, films, films_server  # noqa: F401 - they are fixtures
