"""The tenant "shop" and its administrator."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.fixtures.backend import Backend, backend
from tests.fixtures.people import person

__all__ = ["backend"]


@pytest.fixture
def admin(backend: Backend) -> TestClient:
    return person(backend, "boss", "admin")


@pytest.fixture
def roll_up(backend: Backend) -> Any:
    """Counts what is new, as the pipeline does."""
    from feature_store.analytics_sinks import roll_up_step as count

    return lambda tenant_id=backend.tenant_id: count(backend.url, tenant_id)
