"""Promises of the benchmark of latency: what it counts, whose processor time it sees, and what its page shows."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from configs.local.launch import PROGRAM_VARIABLE
from configs.settings import PathSettings
from tests.benchmarks.latency import generator
from tests.benchmarks.latency.fresh import difference_of
from tests.benchmarks.latency.generator import generate, send
from tests.benchmarks.latency.measure import medians
from tests.benchmarks.latency.page import BEFORE, render, verdicts
from tests.benchmarks.latency.rows import ROWS
from tests.benchmarks.load import Load
from tests.benchmarks.processor_time import memory_of, processes, program_seconds, seconds_of
from tests.fixtures.live import served
from tests.fixtures.platform import wait_until


class Recorder:
    """An application that answers as the bodies ask it to, and remembers the order of what came."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.came: list[tuple[str, dict[str, Any]]] = []

        @self.app.post("/{path}")
        async def answer(path: str, request: Request) -> Response:
            body = await request.json()
            self.came.append((path, body))
            headers = {"X-Recommendation-Degraded": "no-release"} if body.get("degraded") else {}
            return Response("[]", status_code=body.get("status", 200), headers=headers)


@pytest.fixture
def recorder() -> Iterator[tuple[Recorder, str]]:
    found = Recorder()
    with served(found.app) as url:
        yield found, url


@pytest.fixture(params=["wrk", "own"])
def sender(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What sends: wrk where there is one, or our own generator as where there is none."""
    if request.param == "own":
        monkeypatch.setattr(generator.shutil, "which", lambda _: None)
    elif shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    return str(request.param)


@pytest.mark.service
@pytest.mark.usefixtures("sender")
def test_each_body_is_sent_once_where_that_is_asked(recorder: tuple[Recorder, str]) -> None:
    bodies = [json.dumps({"n": n}) for n in range(50)]
    found = send(f"{recorder[1]}/x", {"X-API-Key": "k"}, bodies, 4, 0, once=True)
    counts = Counter(body["n"] for _, body in recorder[0].came)
    assert set(counts) == set(range(50))
    assert sum(counts.values()) <= 50 + 4  # wrk may have sent its next request when the last answer came
    assert found["requests"] >= 50
    assert found["errors"] == found["degraded"] == 0


@pytest.mark.service
@pytest.mark.usefixtures("sender")
def test_degraded_and_failed_answers_are_counted(recorder: tuple[Recorder, str]) -> None:
    found = send(f"{recorder[1]}/x", {}, ['{"degraded": true}'], 2, 1)
    assert 0 < found["degraded"] == found["requests"]
    found = send(f"{recorder[1]}/x", {}, ['{"status": 503}'], 2, 1)
    assert 0 < found["errors"] >= found["requests"]


@pytest.mark.service
def test_each_request_follows_an_interaction_of_its_user(recorder: tuple[Recorder, str]) -> None:
    host, port = recorder[1].removeprefix("http://").split(":")
    load = Load(
        host=host,
        port=int(port),
        path="/ask",
        headers={},
        bodies=[json.dumps({"user": user}) for user in "ab"],
        clients=1,
        seconds=60,
        before_path="/tell",
        before_bodies=[[json.dumps({"of": user, "status": 201})] for user in "ab"],
        rounds=2,
    )
    found = generate(load)
    assert [(path, body.get("of") or body.get("user")) for path, body in recorder[0].came] == [
        (path, user) for _ in range(2) for user in "ab" for path in ("tell", "ask")
    ]
    assert (found["requests"], found["errors"]) == (4, 0)


@pytest.mark.service
def test_the_time_of_a_programs_descendants_is_its_own(tmp_path: Path) -> None:
    """A child without the mark, as PostgreSQL's under another user is, and a grandchild that has ended."""
    paths = PathSettings(state_dir=tmp_path)
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    script = f"""
import os, subprocess, sys, time
subprocess.run([sys.executable, "-c", {busy!r}], env={{}})
subprocess.Popen([sys.executable, "-c", {busy + chr(10) + "time.sleep(600)"!r}], env={{}})
print("started", flush=True)
time.sleep(600)
"""
    mark = {**os.environ, PROGRAM_VARIABLE: f"api@{paths.root}"}
    process = subprocess.Popen([sys.executable, "-c", script], env=mark, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        found = processes(paths, "api")
        assert len(found) == 2
        wait_until("the child's time", lambda: program_seconds(paths)["api"] >= 0.5)  # of 0.6, in ticks
        assert program_seconds(paths)["postgres"] == 0
        assert memory_of(process.pid) > 1_000_000
    finally:
        for each in processes(paths, "api"):
            os.kill(each, 9)
        process.wait()
    assert seconds_of(process.pid) == 0


def test_answers_are_compared_to_the_last_place() -> None:
    one = [{"itemId": "a", "score": 0.5, "algorithm": "hybrid", "evidence": ["x"]}]
    assert not difference_of(one, [{**one[0], "score": 0.500001}])
    assert "score" in difference_of(one, [{**one[0], "score": 0.5001}])
    assert "evidence" in difference_of(one, [{**one[0], "evidence": []}])
    assert "itemId" in difference_of(one, [{**one[0], "itemId": "b"}])
    assert "1 items, not 2" in difference_of(one, one * 2)


def test_medians_are_of_each_figure_and_failures_add_up() -> None:
    rounds = [
        {"requests": 10, "p99_ms": p99, "cpu_ms": {"api": p99 / 10}, "errors": errors, "degraded": 0}
        for p99, errors in ((30.0, 1), (10.0, 0), (20.0, 1))
    ]
    assert medians(rounds) == {"requests": 30, "p99_ms": 20.0, "cpu_ms": {"api": 2.0}, "errors": 2, "degraded": 0}


def test_the_page_shows_every_target_beside_the_figures_of_before() -> None:
    before = json.loads(BEFORE.read_text())
    found = verdicts(before)
    assert {each["row"].split()[0] for each in found} <= set(ROWS)
    assert len(found) == 14
    page = render(before)
    assert page.count("| yes |") + page.count("| no |") == len(found)
    assert before["commit"] in page


def test_the_page_says_what_was_not_measured() -> None:
    before = json.loads(BEFORE.read_text())
    rows = [row for row in before["rows"] if row["row"] == "hybrid"]
    page = render({**before, "rows": rows})
    assert "collaborative, 16" not in page
    assert "| hybrid, 16 clients: p99, ms |" in page
