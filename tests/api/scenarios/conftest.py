from tests.fixtures.portal import portal

__all__ = ["portal"]
