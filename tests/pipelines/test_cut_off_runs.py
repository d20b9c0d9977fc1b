"""A run that is cut off goes on by itself, and `dagster.yaml` of every installation says so."""

import os
import signal
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

from configs.local.launch import PROGRAM_VARIABLE, survivors
from configs.settings import PathSettings
from configs.storage import open_storage
from feature_store.lake import tenant_folder
from pipelines.instance import MAX_RUN_RETRIES, instance_settings, open_instance, prepare_home
from pipelines.jobs import LAKE
from tests.feature_store.rows import add_interactions
from tests.fixtures.platform import wait_until
from tests.pipelines.conftest import TENANT
from tests.pipelines.test_services import program

EARLIER = """\
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: {most}
    tag_concurrency_limits:
    - key: dagster/partition
      value:
        applyLimitPerUniqueValue: true
      limit: 1
    - key: recommendai/work
      value: training
      limit: {trainings}
    - key: recommendai/work
      value: generation
      limit: 1
    - key: recommendai/work
      value: exports
      limit: 1
    - key: recommendai/work
      value: search
      limit: {trainings}
run_monitoring:
  enabled: true
  max_runtime_seconds: 21600
sensors:
  use_threads: true
  num_workers: 4
retention:
  sensor:
    purge_after_days:
      skipped: 1
      failure: 30
      success: 30
"""
"""As the version before wrote it."""
OFTEN = {"poll_interval_seconds": 1}


@pytest.mark.service
def test_a_run_whose_process_is_killed_and_whose_programs_are_killed_goes_on_and_ends_well(
    database_url: str, connection: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    paths = PathSettings(state_dir=tmp_path)
    settings = instance_settings()
    file = tmp_path / "dagster" / "dagster.yaml"
    file.parent.mkdir()
    # The operator's own file, with an interval that a test can wait for.
    file.write_text(yaml.safe_dump({**settings, "run_monitoring": {**settings["run_monitoring"], **OFTEN}}))
    environment = {
        **os.environ,
        "DATABASE_URL": database_url,
        "RECOMMENDAI_STATE_DIR": str(tmp_path),
        "PIPELINE_AUTOMATION": "false",
        PROGRAM_VARIABLE: str(tmp_path),
    }
    add_interactions(connection, TENANT, [("ann", "i1")])
    # An erasure that has waited too long starts a run at the daemon's first tick.
    connection.execute("INSERT INTO tombstones VALUES (%s, 'ben', now() - %s)", (TENANT, timedelta(days=1)))

    def runs() -> list[dg.DagsterRun]:
        with open_instance(paths) as instance:
            return list(instance.get_runs(dg.RunsFilter(job_name=LAKE)))

    def statuses() -> list[str]:
        """Of all runs, the newest first."""
        return [run.status.value for run in runs()]

    def kill(words: bytes) -> None:
        victims = [each for each in survivors(str(tmp_path)) if words in Path(f"/proc/{each}/cmdline").read_bytes()]
        assert victims
        for victim in victims:
            os.kill(victim, signal.SIGKILL)

    with ExitStack() as stack:
        with open_storage(tenant_folder(paths.lake, TENANT)).lock():  # every run waits for it in its step
            with ExitStack() as first:
                for name in ("code", "daemon"):
                    first.enter_context(program(name, environment, tmp_path / f"{name}.log"))
                wait_until("a run", lambda: statuses() == ["STARTED"])
                kill(b"multiprocessing")  # the process of the run
                wait_until("the second run", lambda: statuses() == ["STARTED", "FAILURE"])
                kill(sys.executable.encode())  # all
            for name in ("code", "daemon"):
                stack.enter_context(program(name, environment, tmp_path / f"{name}.log"))
            wait_until("the third run", lambda: statuses() == ["STARTED", "FAILURE", "FAILURE"])
        wait_until("its success", lambda: statuses()[0] == "SUCCESS")
    newest, second, oldest = runs()
    assert newest.parent_run_id == second.run_id
    assert second.parent_run_id == oldest.run_id
    assert len(runs()) == 1 + MAX_RUN_RETRIES


def test_a_step_that_fails_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")

    @dg.op
    def break_down() -> None:
        raise RuntimeError

    @dg.job
    def job() -> None:
        break_down()

    with open_instance(PathSettings(state_dir=tmp_path)) as instance:
        assert not job.execute_in_process(instance=instance, raise_on_error=False).success
        (run,) = instance.get_runs()
        assert run.tags["dagster/will_retry"] == "false"


@pytest.mark.parametrize("trainings", [1, 48])
def test_a_dagster_yaml_of_an_earlier_version_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: int
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    file = tmp_path / "dagster" / "dagster.yaml"
    file.parent.mkdir()
    file.write_text(EARLIER.format(trainings=trainings, most=trainings + 4))
    prepare_home(PathSettings(state_dir=tmp_path))
    assert yaml.safe_load(file.read_text()) == instance_settings()


def test_a_dagster_yaml_is_updated_until_somebody_changes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    paths, file = PathSettings(state_dir=tmp_path), tmp_path / "dagster" / "dagster.yaml"
    monkeypatch.setattr("pipelines.instance.MAX_RUN_SECONDS", 60)
    prepare_home(paths)
    monkeypatch.undo()
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    prepare_home(paths)
    assert yaml.safe_load(file.read_text()) == instance_settings()
    changed = file.read_text().replace("max_retries: 2", "max_retries: 0")
    file.write_text(changed)
    prepare_home(paths)
    assert file.read_text() == changed


@pytest.mark.parametrize(
    ("own", "added"),
    [
        ("# its own\nconcurrency:\n  runs:\n    max_concurrent_runs: 7 # few\n", ["run_retries", "run_queue"]),
        ("{telemetry: {enabled: false}}\n", ["run_retries", "run_queue"]),
        ("", ["run_retries", "run_queue"]),
        ("run_retries:\n  enabled: false\nrun_coordinator:\n  module: m\n  class: C\n", []),
    ],
)
def test_an_operators_file_keeps_what_it_says_and_gets_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, added: list[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    file = tmp_path / "dagster" / "dagster.yaml"
    file.parent.mkdir()
    file.write_text(own)
    prepare_home(PathSettings(state_dir=tmp_path))
    text = file.read_text()
    assert yaml.safe_load(text) == {
        **(yaml.safe_load(own) or {}),
        **{name: instance_settings()[name] for name in added},
    }
    assert all(line in text for line in own.splitlines() if "#" in line)
    prepare_home(PathSettings(state_dir=tmp_path))
    assert file.read_text() == text
