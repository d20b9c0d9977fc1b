"""Tenants take turns in the queue of runs. The next run is chosen by Dagster's own daemon."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import MAX_RETRIES_TAG, PRIORITY_TAG
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from configs.settings import PathSettings
from pipelines.definitions import build_definitions
from pipelines.defs.queue.order import QueuedRun, changed_priorities
from pipelines.defs.queue.sensors import cut_off_runs, long_runs, order_queue
from pipelines.instance import MAX_RUN_SECONDS, open_instance
from pipelines.jobs import EXPORTING, GENERATION, LAST_IN_QUEUE, PUBLISH, SEARCHING, TRAINING, tags_of_work
from pipelines.partitions import GENERATION_TENANT_TAG, TENANT_TAG
from pipelines.resources import Installation

QUEUED = dg.DagsterRunStatus.QUEUED
ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository"), "any_job")
"""Where the daemon would find the job."""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance with the settings of an installation, on a machine with two cores."""
    monkeypatch.setenv("DAGSTER_HOME", "/nowhere")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with open_instance(PathSettings(state_dir=tmp_path)) as instance:
        yield instance


@dg.job
def any_job() -> None: ...


@dg.job(name=PUBLISH)
def publish() -> None: ...


def add(instance: dg.DagsterInstance, tenant: str, work: str, **tags: str) -> str:
    """The id of a new run in the queue."""
    whose = {GENERATION_TENANT_TAG: tenant, **({TENANT_TAG: tenant} if work in (TRAINING, SEARCHING) else {})}
    return enqueue(instance, any_job, {**tags_of_work(work), **whose, **tags})


def enqueue(instance: dg.DagsterInstance, job: dg.JobDefinition, tags: dict[str, str]) -> str:
    return instance.create_run_for_job(job, status=QUEUED, tags=tags, remote_job_origin=ORIGIN).run_id


def end(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_failed(run)


def start(instance: dg.DagsterInstance, run_id: str) -> None:
    for event in (dg.DagsterEventType.PIPELINE_STARTING, dg.DagsterEventType.PIPELINE_START):
        instance.report_dagster_event(dg.DagsterEvent(event.value, "any_job"), run_id)


def next_runs(instance: dg.DagsterInstance) -> list[str]:
    """What the daemon would start now."""
    order_queue(instance)
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    chosen = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
    return [run.run_id for run in chosen]


@pytest.mark.parametrize("work", [TRAINING, GENERATION, EXPORTING, SEARCHING])
def test_a_tenant_waits_for_one_run_of_another_and_not_for_the_fifty_that_it_has_queued(
    own: dg.DagsterInstance, work: str
) -> None:
    busy = [add(own, "busy", work) for _ in range(50)]
    start(own, busy[0])
    late = add(own, "late", work)
    assert next_runs(own) == []
    end(own, busy[0])
    assert next_runs(own) == [late]
    start(own, late)
    another = add(own, "late", work)
    end(own, late)
    assert next_runs(own) == [busy[1]]  # and then it is the other's turn again
    start(own, busy[1])
    end(own, busy[1])
    assert next_runs(own) == [another]


def test_tenants_take_turns_in_each_kind_of_work_independently(own: dg.DagsterInstance) -> None:
    training = [add(own, "busy", TRAINING) for _ in range(3)]
    start(own, training[0])
    generation, export = add(own, "busy", GENERATION), add(own, "late", EXPORTING)
    assert set(next_runs(own)) == {generation, export}


def test_a_new_run_is_behind_those_that_wait_until_the_sensor_has_seen_it(own: dg.DagsterInstance) -> None:
    first = add(own, "busy", GENERATION)
    start(own, first)
    late = add(own, "late", GENERATION)
    order_queue(own)
    end(own, first)
    add(own, "busy", GENERATION)
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    chosen = daemon._get_runs_to_dequeue(own, own.get_concurrency_config(), None)
    assert [run.run_id for run in chosen] == [late]


def test_publications_and_runs_that_a_person_gave_a_priority_come_first(own: dg.DagsterInstance) -> None:
    for tenant in ("a", "b"):
        add(own, tenant, GENERATION)
    preferred = add(own, "c", GENERATION, **{PRIORITY_TAG: "5"})
    rolled_back = enqueue(own, publish, {GENERATION_TENANT_TAG: "d"})
    assert next_runs(own) == [preferred, rolled_back]


def test_every_job_begins_at_the_end_of_the_queue_but_a_publication(installation: Installation) -> None:
    jobs = build_definitions(installation).get_repository_def().get_all_jobs()
    found = {job.name: job.tags.get(PRIORITY_TAG) for job in jobs if not job.name.startswith("__")}
    assert found.pop(PUBLISH) is None
    assert set(found.values()) == {str(LAST_IN_QUEUE)}


def test_the_tenant_that_has_waited_longest_is_first_and_priorities_change_once() -> None:
    names = ("recent", "long ago", "never")
    queue = [QueuedRun(f"{name} {number}", (name, ""), LAST_IN_QUEUE) for name in names for number in range(2)]
    changed = changed_priorities(queue, {("recent", ""): 900.0, ("long ago", ""): 5.0})
    assert changed == {"recent 0": -900_000, "long ago 0": -5_000, "never 0": 0}
    assert changed_priorities([QueuedRun("x", ("recent", ""), -900_000)], {("recent", ""): 900.0}) == {}


def test_a_run_that_has_gone_on_for_too_long_is_not_started_again(
    own: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = add(own, "busy", TRAINING)
    start(own, run_id)
    for hours, expected in ((0.0, "true"), (MAX_RUN_SECONDS / 3600, "false")):
        now = time.time() + hours * 3600
        with monkeypatch.context() as later:
            later.setattr("pipelines.defs.queue.sensors.time.time", lambda now=now: now)
            long_runs(dg.build_sensor_context(instance=own))
        run = own.get_run_by_id(run_id)
        assert run is not None
        assert (run.tags.get(MAX_RETRIES_TAG) == "0") == (expected == "false")
    end(own, run_id)
    run = own.get_run_by_id(run_id)
    assert run is not None
    assert run.tags["dagster/will_retry"] == "false"


@pytest.mark.parametrize(
    ("tags", "later", "expected"),
    [
        ({}, False, 2),
        ({"dagster/will_retry": "false"}, False, 2),  # the daemon tried, and the code server did not answer
        ({}, True, 1),
        ({"dagster/failure_reason": "STEP_FAILURE"}, False, 1),
        ({MAX_RETRIES_TAG: "0"}, False, 1),
    ],
)
def test_the_daemon_is_told_again_of_a_run_that_was_cut_off_unless_it_or_a_later_one_went_on(
    own: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], later: bool, expected: int
) -> None:
    monkeypatch.setattr("pipelines.defs.queue.sensors.CUT_OFF_SECONDS", -1)
    run_id = add(own, "busy", TRAINING)
    start(own, run_id)
    own.add_run_tags(run_id, tags)
    end(own, run_id)
    own.add_run_tags(run_id, tags)
    if later:
        add(own, "busy", TRAINING)
    add(own, "other", TRAINING)
    cut_off_runs(dg.build_sensor_context(instance=own))
    assert len(own.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)) == expected
