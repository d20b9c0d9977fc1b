"""A backend without a model server."""

from tests.fixtures.backend import backend

__all__ = ["backend"]
