"""Sensors and the schedule, evaluated against a real database and a real Dagster instance."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from json import dumps
from typing import Any

import dagster as dg
import psycopg
import pytest

from configs.files import write_text
from configs.pipelines import PipelineSettings
from feature_store.exports import export_interactions
from feature_store.lake import TenantLake
from pipelines.definitions import build_definitions
from pipelines.io_managers import values_folder
from pipelines.jobs import LAKE, RETRAIN
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.pending_interactions import PendingInteractions
from pipelines.resources import Installation
from pipelines.runs import PROCESS_TAG, abandoned_runs, active_run, fail_runs, this_process
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


def test_an_export_without_a_training_takes_no_interaction_away(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    arrive(connection, 10)
    export_interactions(installation.database_url(), installation.paths.lake, TENANT)
    seen = asdict(TenantLake(installation.paths.lake, TENANT).cursor())
    write_text(
        values_folder(installation.paths) / "feature_snapshot" / f"{TENANT}.json",
        dumps({"snapshot_id": "", "lake_cursor": seen}),
    )
    arrive(connection, 5)
    export_interactions(installation.database_url(), installation.paths.lake, TENANT)
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
    assert PendingInteractions(in_lake, new, next_xid=0).missing(settings) == missing


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
    assert set(fail_runs(instance, abandoned_runs(instance))) == {cut_off, starting}
    statuses = {run.run_id: run.status.value for run in instance.get_runs()}
    assert statuses == {cut_off: "FAILURE", starting: "FAILURE", beside: "STARTED"}


def erasing(installation: Installation, instance: dg.DagsterInstance) -> list[str | None]:
    """Tenants that the sensor wants a lake run of."""
    return [run.partition_key for run in tick(installation, instance, "erasures").run_requests or []]


def bury(connection: psycopg.Connection[Any], tenant: str, user: str, ago: timedelta) -> None:
    connection.execute("INSERT INTO tombstones VALUES (%s, %s, now() - %s)", (tenant, user, ago))


def test_a_tombstone_alone_starts_a_lake_run_within_a_day(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    assert tick(installation, instance, "erasures").skip_reason.skip_message == "no erasure is waiting"
    bury(connection, TENANT, "ann", timedelta(hours=11, minutes=55))
    assert erasing(installation, instance) == []
    assert f"{TENANT}: until " in tick(installation, instance, "erasures").skip_reason.skip_message
    bury(connection, TENANT, "ben", timedelta(hours=12, minutes=1))
    result = tick(installation, instance, "erasures")
    assert [run.partition_key for run in result.run_requests] == [TENANT]
    # New tenants get their partitions where trainings start by themselves, an erasure does in any case.
    assert [request.partition_keys for request in result.dynamic_partitions_requests] == [[TENANT]]
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    assert tick(installation, instance, "erasures").dynamic_partitions_requests == []
    export_interactions(installation.database_url(), installation.paths.lake, TENANT)
    assert erasing(installation, instance) == []


def test_a_lake_run_for_an_erasure_waits_for_the_one_that_goes_on_and_comes_again_where_it_failed(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    bury(connection, TENANT, "ann", timedelta(days=1))
    run_id = start_run(instance, dg.DagsterRunStatus.STARTED)
    assert erasing(installation, instance) == []
    assert run_id in tick(installation, instance, "erasures").skip_reason.skip_message
    instance.delete_run(run_id)
    start_run(instance, dg.DagsterRunStatus.FAILURE)
    assert erasing(installation, instance) == [TENANT]


def test_erasures_are_looked_after_whether_or_not_trainings_start_by_themselves(installation: Installation) -> None:
    sensor = build_definitions(installation).resolve_sensor_def("erasures")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert PipelineSettings().erase_after_hours * 3600 + sensor.minimum_interval_seconds < 86_400


def test_the_job_that_an_erasure_starts_exports_without_checks(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    arrive(connection, 3)
    bury(connection, TENANT, "u1", timedelta())
    job = build_definitions(installation).resolve_job_def(LAKE)
    result = job.execute_in_process(instance=instance, partition_key=TENANT)
    made = result.asset_materializations_for_node("lake_interactions")
    assert [dict(event.metadata)["erased_users"].value for event in made] == [1]
    assert result.get_asset_check_evaluations() == []
    assert erasing(installation, instance) == []


def test_a_generation_job_waits_for_no_more_than_a_few_seconds(installation: Installation) -> None:
    sensor = build_definitions(installation).resolve_sensor_def("generation_jobs")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds is not None and sensor.minimum_interval_seconds < 10
