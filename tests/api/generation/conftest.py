"""The backends of the tests of recommendations, for whose users these tests generate."""

from tests.api.recommendations.conftest import backend, films, films_server  # noqa: F401 - they are fixtures
