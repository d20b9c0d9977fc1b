"""A backend with an API key."""

from tests.fixtures.backend import backend  # noqa: F401 - a fixture
