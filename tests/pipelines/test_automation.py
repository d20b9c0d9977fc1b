"""Sensors and the schedule, evaluated against a real database and a real Dagster instance."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
import pytest

from configs.settings import PipelineSettings
from feature_store.exports import export_interactions
from pipelines.definitions import build_definitions
from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.resources import Installation
from pipelines.retraining import Arrivals
from pipelines.runs import PROCESS_TAG, active_run, fail_abandoned, this_process
from tests.feature_store.rows import add_interactions, add_tenant
from tests.pipelines.conftest import TENANT


def tick(installation: Installation, instance: dg.DagsterInstance, sensor: str) -> Any:
    """What the sensor answers, a SensorResult or a SkipReason."""
    context = dg.build_sensor_context(instance=instance, resources={"installation": installation})
    return build_definitions(installation).resolve_sensor_def(sensor)(context)


def requested(installation: Installation, instance: dg.DagsterInstance) -> list[str | None]:
    """Tenants that the sensor wants to retrain."""
    return [run.partition_key for run in tick(installation, instance, "retrain_after_interactions").run_requests or []]


def arrive(connection: psycopg.Connection[Any], n: int) -> None:
    add_interactions(connection, TENANT, [(f"u{number}", "i1") for number in range(n)])


def start_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    @dg.job(name=RETRAIN)
    def job() -> None: ...

    tags = {TENANT_TAG: TENANT, **tags}
    return instance.create_run_for_job(job, status=status, tags=tags).run_id


def test_a_new_tenant_gets_its_partition_and_a_deleted_one_loses_it(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    instance.add_dynamic_partitions(TENANTS, ["gone"])
    for request in tick(installation, instance, "new_tenants").dynamic_partitions_requests:
        if isinstance(request, dg.AddDynamicPartitionsRequest):
            instance.add_dynamic_partitions(TENANTS, request.partition_keys)
        else:
            for key in request.partition_keys:
                instance.delete_dynamic_partition(TENANTS, key)
    assert instance.get_dynamic_partitions(TENANTS) == [TENANT]
    assert isinstance(tick(installation, instance, "new_tenants"), dg.SkipReason)


def test_the_first_model_and_later_ones_wait_for_their_thresholds(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    arrive(connection, 9)
    assert requested(installation, instance) == []
    assert "1 more" in tick(installation, instance, "retrain_after_interactions").skip_reason.skip_message
    arrive(connection, 1)
    assert requested(installation, instance) == [TENANT]
    export_interactions(installation.database_url(), installation.paths.lake, TENANT)
    assert requested(installation, instance) == []
    arrive(connection, 4)
    assert requested(installation, instance) == []
    arrive(connection, 1)
    assert requested(installation, instance) == [TENANT]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_a_tenant_whose_run_waits_or_goes_on_gets_no_other(
    installation: Installation,
    instance: dg.DagsterInstance,
    connection: psycopg.Connection[Any],
    status: dg.DagsterRunStatus,
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    arrive(connection, 10)
    run_id = start_run(instance, status)
    assert requested(installation, instance) == []
    assert run_id in tick(installation, instance, "retrain_after_interactions").skip_reason.skip_message
    instance.delete_run(run_id)
    assert requested(installation, instance) == [TENANT]


def test_one_export_asks_for_one_run(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    arrive(connection, 10)
    keys = [
        tick(installation, instance, "retrain_after_interactions").run_requests[0].run_key,
        tick(installation, instance, "retrain_after_interactions").run_requests[0].run_key,
    ]
    export_interactions(installation.database_url(), installation.paths.lake, TENANT)
    arrive(connection, 5)
    keys.append(tick(installation, instance, "retrain_after_interactions").run_requests[0].run_key)
    assert keys[0] == keys[1] != keys[2]


def test_the_nightly_run_takes_tenants_with_enough_interactions(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    add_tenant(connection, "small")
    instance.add_dynamic_partitions(TENANTS, [TENANT, "small"])
    arrive(connection, 10)
    definitions = build_definitions(installation)
    schedule = definitions.resolve_schedule_def("nightly")
    at = datetime(2026, 1, 2, 3, tzinfo=UTC)
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=at,
        resources={"installation": installation},
        repository_def=definitions.get_repository_def(),
    )
    runs = schedule.evaluate_tick(context).run_requests or []
    assert [(run.partition_key, run.run_key) for run in runs] == [(TENANT, f"{TENANT}:{at.isoformat()}")]
    assert schedule.cron_schedule == installation.pipeline.nightly_cron
    start_run(instance, dg.DagsterRunStatus.STARTED)
    assert not schedule.evaluate_tick(context).run_requests


@pytest.mark.parametrize("on", [False, True])
def test_automation_is_a_setting(installation: Installation, on: bool) -> None:
    automatic = Installation(
        paths=installation.paths, pipeline=PipelineSettings(automation=on, nightly_cron="30 1 * * *")
    )
    definitions = build_definitions(automatic)
    found = {sensor.name: sensor.default_status.value for sensor in definitions.sensors or []}
    expected = "RUNNING" if on else "STOPPED"
    assert {name: found[name] for name in ("new_tenants", "retrain_after_interactions")} == {
        "new_tenants": expected,
        "retrain_after_interactions": expected,
    }
    assert found["generation_jobs"] == "RUNNING"  # jobs that the API accepted are worked off in any case
    assert found["activity"] == "RUNNING"  # or the API would have more and more to count at each request
    assert definitions.resolve_schedule_def("hourly_analytics").default_status.value == expected
    nightly = definitions.resolve_schedule_def("nightly")
    assert (nightly.default_status.value, nightly.cron_schedule) == (expected, "30 1 * * *")


@pytest.mark.parametrize(
    ("in_lake", "new", "missing"),
    [(0, 0, 10), (0, 10, 0), (4, 5, 1), (4, 6, 0), (9, 0, 1), (10, 0, 5), (10, 4, 1), (10, 5, 0), (10, 50, 0)],
)
def test_what_is_missing_until_training_is_due(in_lake: int, new: int, missing: int) -> None:
    settings = PipelineSettings(first_model_after=10, retrain_after=5)
    assert Arrivals(in_lake, new, next_xid=0).missing(settings) == missing


def test_a_run_whose_process_died_is_failed_and_makes_way(instance: dg.DagsterInstance) -> None:
    living = start_run(instance, dg.DagsterRunStatus.STARTED, **{PROCESS_TAG: this_process()})
    found = active_run(instance, TENANT)
    assert found is not None
    assert found.run_id == living
    instance.delete_run(living)
    host, pid, start = this_process().rsplit(":", 2)
    dead = start_run(instance, dg.DagsterRunStatus.STARTED, **{PROCESS_TAG: f"{host}:{pid}:{int(start) - 1}"})
    assert active_run(instance, TENANT) is None
    record = instance.get_run_by_id(dead)
    assert record is not None
    assert record.status == dg.DagsterRunStatus.FAILURE


def test_a_daemon_that_starts_fails_the_runs_of_the_one_before(instance: dg.DagsterInstance) -> None:
    cut_off = start_run(instance, dg.DagsterRunStatus.STARTED)
    starting = start_run(instance, dg.DagsterRunStatus.STARTING)
    beside = start_run(instance, dg.DagsterRunStatus.STARTED, **{PROCESS_TAG: this_process()})
    assert set(fail_abandoned(instance)) == {cut_off, starting}
    statuses = {run.run_id: run.status.value for run in instance.get_runs()}
    assert statuses == {cut_off: "FAILURE", starting: "FAILURE", beside: "STARTED"}
