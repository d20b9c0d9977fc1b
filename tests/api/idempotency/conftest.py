"""A backend's key to the API."""

from tests.fixtures.backend import backend  # noqa: F401 - a fixture
