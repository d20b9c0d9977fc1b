from tests.fixtures.backend import backend

__all__ = ["backend"]
