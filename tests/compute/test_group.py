"""Processes that train together on two machines find each other, and start again where one dies."""

from pathlib import Path

import pytest

from tests.compute.conftest import Machines
from tests.compute.functions import die_once, fail_in_second_rank, sum_of_ranks

pytestmark = pytest.mark.service


def test_a_group_is_as_under_torchrun(machines: Machines) -> None:
    assert machines.compute.train(sum_of_ranks, 2, None) == (1, 2)


def test_a_group_starts_again_when_one_of_its_processes_is_killed(machines: Machines, tmp_path: Path) -> None:
    assert machines.compute.train(die_once, 2, tmp_path) == 1
    assert (tmp_path / "died").exists()


def test_what_one_process_raises_ends_the_group_and_is_raised(machines: Machines) -> None:
    with pytest.raises(ValueError, match="the second"):
        machines.compute.train(fail_in_second_rank, 2, None)


def test_more_processes_than_processors_are_refused(machines: Machines) -> None:
    with pytest.raises(ValueError, match="3 processes need as many processors"):
        machines.compute.train(sum_of_ranks, 3, None)
