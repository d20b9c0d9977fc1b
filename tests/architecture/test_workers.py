"""Workers run side by side: what shares a server or fitted models runs on one of them."""

import pytest

from tests.fixtures.gpu import has_gpu
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


def test_what_needs_a_gpu_runs_where_there_is_one_and_is_not_skipped_elsewhere(request: pytest.FixtureRequest) -> None:
    asks = [item for item in request.session.items if any(item.iter_markers("gpu"))]
    whole_suite = any(item.nodeid.startswith("tests/training/") for item in request.session.items)
    assert not asks if not has_gpu() else asks or not whole_suite
