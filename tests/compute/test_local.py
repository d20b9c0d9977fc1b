"""The default engine: tasks in this process, groups as `torchrun` starts them, and no Ray."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from configs.compute import ComputeSettings
from configs.settings import PathSettings
from pipelines.compute.choice import compute_of
from pipelines.compute.local import LocalCompute
from tests.compute.functions import Range, die_once, fail_on_odd, leave_a_mark, total


def test_results_have_the_order_of_the_tasks_and_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    tasks = [Range(0, 4), Range(4, 4), Range(4, 6)]
    results = LocalCompute().map(total, tasks, on_progress=lambda done, of: told.append((done, of)))
    assert list(results) == [6, 0, 9]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_closed_iterator_starts_no_further_task(tmp_path: Path) -> None:
    results = LocalCompute().map(leave_a_mark, [tmp_path / name for name in "abc"])
    assert next(results) == "a"
    results.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_task_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="3 is odd"):
        list(LocalCompute().map(fail_on_odd, [2, 3, 4]))


@pytest.mark.parametrize(
    "task", [pa.table({"a": [1]}), object(), [list(range(10_001))]], ids=["table", "object", "long"]
)
def test_only_small_plain_values_are_tasks(task: object) -> None:
    with pytest.raises(TypeError, match="task"):
        list(LocalCompute().map(total, [task]))  # type: ignore[list-item]


def test_only_functions_that_another_process_finds_are_run() -> None:
    with pytest.raises(TypeError, match="top level"):
        LocalCompute().map(lambda task: task, [1])


@pytest.mark.service
def test_a_group_starts_again_when_one_of_its_processes_is_killed(tmp_path: Path) -> None:
    assert LocalCompute().train(die_once, 2, tmp_path) == 1  # ranks 0 and 1


def test_the_cluster_must_be_named() -> None:
    assert isinstance(compute_of(ComputeSettings(engine="local"), PathSettings()), LocalCompute)
    with pytest.raises(ValueError, match="RAY_ADDRESS"):
        ComputeSettings(engine="ray", ray_address=None)


@pytest.mark.service
def test_local_engine_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys; from configs.compute import ComputeSettings; from configs.settings import PathSettings;"
        "from pipelines.compute.choice import compute_of;"
        "from tests.compute.functions import total, Range;"
        "assert list(compute_of(ComputeSettings(engine='local'), PathSettings()).map(total, [Range(0, 4)])) == [6];"
        "print(sorted({'ray', 'torch', 'dagster'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
