"""A backend with an API key, and a portal."""

from tests.fixtures.backend import backend  # noqa: F401 - a fixture
from tests.fixtures.portal import portal  # noqa: F401 - a fixture
