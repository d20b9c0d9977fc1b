"""Tasks on two machines of a Ray cluster: results as here, whatever dies, and closed to others."""

import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from pipelines.compute.local import LocalCompute
from pipelines.compute.port import TaskLostError
from tests.compute.conftest import Machines
from tests.compute.functions import Held, Range, always_die, die_at_first, fail_on_odd, hold, total
from tests.fixtures.platform import ROOT, wait_until

pytestmark = pytest.mark.service


def test_results_and_progress_are_those_of_one_machine(machines: Machines) -> None:
    tasks = [Range(0, 4), Range(4, 4), *(Range(number, number + 3) for number in range(20))]
    told: list[tuple[int, int]] = []
    results = list(machines.compute.map(total, tasks, on_progress=lambda done, of: told.append((done, of))))
    assert results == list(LocalCompute().map(total, tasks))
    assert told == [(number, 22) for number in range(1, 23)]
    assert machines.compute.parallelism >= 2  # a machine that another test killed counts until it is missed


def test_tasks_are_made_as_they_start_and_not_far_ahead(machines: Machines) -> None:
    made: list[int] = []
    results = machines.compute.map(fail_on_odd, (made.append(number) or number for number in range(0, 40, 2)))
    assert next(results) == 0
    assert len(made) <= 5  # two for each machine, and one that took the place of the first
    results.close()
    assert len(made) <= 5


def test_what_a_task_raises_is_raised_as_here(machines: Machines) -> None:
    with pytest.raises(ValueError, match=r"^3 is odd$"):
        list(machines.compute.map(fail_on_odd, [2, 3, 4]))


def test_a_task_runs_again_where_its_process_was_killed(machines: Machines, tmp_path: Path) -> None:
    assert list(machines.compute.map(die_at_first, [tmp_path])) == ["died"]


def test_a_task_that_kills_every_process_is_given_up(machines: Machines) -> None:
    with pytest.raises(TaskLostError, match="4 times"):
        list(machines.compute.map(always_die, [1]))


def test_work_that_fits_no_machine_is_refused_with_advice(machines: Machines) -> None:
    with pytest.raises(ValueError, match="divide the work"):
        list(machines.compute.map(total, [Range(0, 1)], memory_bytes=10**15))


def test_a_machine_that_dies_loses_nothing(two: Machines, tmp_path: Path) -> None:
    def marks() -> list[list[str]]:
        return [path.name.split("@") for path in tmp_path.glob("*@*")]

    def kill_once(done: int, _of: int) -> None:
        if done == 1:  # the first task has ended, and the others wait
            wait_until("both machines", lambda: len({node for number, node, _ in marks() if number != "0"}) == 2, 120)
            held = [int(pid) for number, node, pid in marks() if number != "0" and node == two.second.node_id]
            two.kill_second()
            wait_until("the end of its workers", lambda: not any(map(psutil.pid_exists, held)), 120)
            (tmp_path / "go").touch()

    results = list(two.compute.map(hold, [Held(number, tmp_path) for number in range(6)], on_progress=kill_once))
    assert results == list(range(6))
    assert len(marks()) > len(results)  # the task of the dead machine ran once more


def test_all_of_it_listens_on_loopback_alone(machines: Machines) -> None:
    """The driver, the head and its agents, the raylets and their workers."""
    list(machines.compute.map(total, [Range(0, 1)] * 4))
    here = psutil.Process()
    names, addresses = set(), set()
    for process in [*here.children(recursive=True), here]:
        try:
            listening = [each.laddr.ip for each in process.net_connections("inet") if each.status == "LISTEN"]
            names |= {process.name()} if listening else set()
            addresses |= set(listening)
        except psutil.NoSuchProcess:
            continue
    assert {"gcs_server", "raylet"} <= names
    assert all(ip_address(each.removeprefix("::ffff:")).is_loopback for each in addresses), addresses


@pytest.mark.parametrize("token", ["0" * 40, None], ids=["another token", "no token"])
def test_a_stranger_without_the_token_is_refused(token: str | None, machines: Machines) -> None:
    code = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'')"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    own = {"RAY_AUTH_MODE": "disabled"} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    environment = {
        **kept,
        **own,
        "RAY_gcs_rpc_server_connect_timeout_s": "2",
        "RAY_gcs_server_request_timeout_seconds": "2",
    }
    command = [sys.executable, "-c", code, machines.address]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert "authenticat" in done.stderr.lower() or "token" in done.stderr.lower()
