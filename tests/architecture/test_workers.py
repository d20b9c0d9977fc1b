"""Workers run side by side: what shares a server or fitted models runs on one of them."""

import pytest

from tests.fixtures.workers import GROUPS, fixtures_of, group_of


def test_files_that_share_a_server_are_in_its_group(request: pytest.FixtureRequest) -> None:
    """Otherwise two workers start the same servers. A wrong file is added to `GROUPS` in tests/fixtures/workers.py."""
    wrong = {
        (file, fixture)
        for item in request.session.items
        for fixture in GROUPS.keys() & fixtures_of(item)
        if group_of(file := item.nodeid.partition("::")[0]) != fixture
    }
    assert not wrong
