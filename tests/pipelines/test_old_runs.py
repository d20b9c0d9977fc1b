"""Dagster's history is bounded: of each job and tenant the newest runs stay, and nothing else."""

import sqlite3
from pathlib import Path

import dagster as dg
import pytest

from configs.settings import PathSettings
from pipelines import old_runs
from pipelines.instance import open_instance
from pipelines.old_runs import delete_old_runs
from pipelines.partitions import GENERATION_TENANT_TAG, TENANT_TAG


@dg.op
def talk(context: dg.OpExecutionContext) -> None:
    context.log_event(dg.AssetMaterialization("told"))


@dg.job
def first() -> None:
    talk()


@dg.job
def second() -> None:
    talk()


def run(instance: dg.DagsterInstance, job: dg.JobDefinition, **tags: str) -> str:
    return job.execute_in_process(instance=instance, tags=tags).run_id


def test_of_each_job_and_tenant_the_newest_runs_stay_with_their_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    monkeypatch.setattr(old_runs, "RUNS_PER_QUERY", 3)
    with open_instance(PathSettings(state_dir=tmp_path)) as instance:
        quiet = run(instance, first, **{TENANT_TAG: "quiet"})
        active = instance.create_run_for_job(first, tags={TENANT_TAG: "busy"}, status=dg.DagsterRunStatus.STARTED)
        busy = [run(instance, first, **{TENANT_TAG: "busy"}) for _ in range(3)]
        other_job = run(instance, second, **{TENANT_TAG: "busy"})
        generated = [run(instance, second, **{GENERATION_TENANT_TAG: "busy"}) for _ in range(2)]
        calls, cursor = 0, None
        while calls == 0 or cursor is not None:
            _, cursor = delete_old_runs(instance, keep=1, cursor=cursor, seconds=0.0)
            calls += 1
        assert calls > 1
        kept = {quiet, active.run_id, *busy[2:], other_job, generated[1]}
        assert {each.run_id for each in instance.get_runs()} == kept
        assert instance.get_latest_materialization_event(dg.AssetKey("told")) is not None
        history = tmp_path / "dagster" / "history" / "runs"
        assert not {path.name.split(".")[0] for path in history.iterdir()} & {*busy[:2], generated[0]}
        with sqlite3.connect(history / "index.db") as events:
            assert {row[0] for row in events.execute("SELECT DISTINCT run_id FROM event_logs")} == kept - {
                active.run_id
            }
        assert delete_old_runs(instance, keep=1) == (0, None)
