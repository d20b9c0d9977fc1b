"""One API and one Stripe account for the tests of a module; each test has a tenant of its own."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures.desk import Desk, Shop, running_desk


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: Any) -> Iterator[Desk]:
    with running_desk(module_database_url, tmp_path_factory.mktemp("desk")) as desk:
        yield desk


@pytest.fixture
def shop(desk: Desk) -> Shop:
    """A tenant on the plan `free`."""
    return desk.shop()
