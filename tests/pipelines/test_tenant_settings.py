"""What a tenant has set is what its pipeline does: when it trains, for how long, what Dagster shows, what is told."""

import json
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
import pytest

from feature_store.exports import export_interactions
from feature_store.settings_sources import read_pipeline_settings
from pipelines.definitions import build_definitions
from pipelines.defs.training.steps import TrainingRun
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.resources import Installation
from tests.feature_store.rows import add_interactions, add_tenant
from tests.pipelines.conftest import TENANT


def set_pipeline(connection: psycopg.Connection[Any], tenant: str = TENANT, **settings: Any) -> None:
    connection.execute(
        "INSERT INTO pipeline_settings (tenant_id, settings, webhook_secret) VALUES (%s, %s, 'a secret') "
        "ON CONFLICT (tenant_id) DO UPDATE SET settings = excluded.settings",
        (tenant, json.dumps(settings)),
    )


def test_thresholds_nights_and_seconds_are_the_tenants_own(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    add_tenant(connection, "other")
    instance.add_dynamic_partitions(TENANTS, [TENANT, "other"])
    set_pipeline(connection, training={"nightly": False, "retrainAfter": 2, "seconds": 7})
    for tenant in (TENANT, "other"):
        add_interactions(connection, tenant, [(f"u{number}", "i1") for number in range(10)])
    definitions = build_definitions(installation)
    context = dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime(2026, 1, 2, 3, tzinfo=UTC),
        resources={"installation": installation},
        repository_def=definitions.get_repository_def(),
    )
    runs = definitions.resolve_schedule_def("nightly").evaluate_tick(context).run_requests or []
    assert [run.partition_key for run in runs] == ["other"]

    for tenant in (TENANT, "other"):
        export_interactions(installation.database_url(), installation.paths.lake, tenant)
        add_interactions(connection, tenant, [("ann", "i1"), ("ben", "i1")])
    sensor = definitions.resolve_sensor_def("retrain_after_interactions")
    result: Any = sensor(dg.build_sensor_context(instance=instance, resources={"installation": installation}))
    assert [run.partition_key for run in result.run_requests] == [TENANT]

    manifest: Any = type("Manifest", (), {"tenant_id": TENANT})
    assert TrainingRun(installation, manifest, "all").options.max_seconds == 7
    manifest.tenant_id = "other"
    assert TrainingRun(installation, manifest, "all").options.max_seconds == installation.pipeline.train_seconds


def test_dagster_shows_the_settings_in_force_and_neither_tokens_nor_addresses(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    alerts = {"webhookUrl": "https://ops.example.com/hook?token=t0psecret", "emails": ["ops@acme.example"]}
    set_pipeline(connection, search={"minutes": 5}, alerts=alerts, setting_of_a_later_version=1)
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    job = build_definitions(installation).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance,
        partition_key=TENANT,
        asset_selection=[dg.AssetKey("pipeline_settings")],
    )
    (event,) = result.asset_materializations_for_node("pipeline_settings")
    rows = {row.data["setting"]: (row.data["value"], row.data["from"]) for row in event.metadata["settings"].records}
    assert rows["search.minutes"] == (5, "tenant")
    assert rows["search.everyDays"] == (7, "default")
    assert rows["training.retrainAfter"] == (installation.pipeline.retrain_after, "installation")
    assert rows["alerts.webhookUrl"] == ("ops.example.com", "tenant")
    assert rows["alerts.emails"] == (1, "tenant")
    shown = f"{event.metadata}{result.output_for_node('pipeline_settings')}"
    for hidden in ("t0psecret", "ops@", "a secret"):
        assert hidden not in shown


@pytest.mark.parametrize("is_of_tenant", [True, False])
def test_a_failed_run_is_told_to_its_tenant_without_the_error(
    installation: Installation,
    instance: dg.DagsterInstance,
    connection: psycopg.Connection[Any],
    is_of_tenant: bool,
) -> None:
    set_pipeline(connection, alerts={"emails": ["ops@acme.example"]})

    @dg.op
    def broken() -> None:
        raise ValueError("postgresql://user:password@host/ and user-4711")

    @dg.job
    def nightly_work() -> None:
        broken()

    definitions = build_definitions(installation)
    sensor: Any = definitions.resolve_sensor_def("failed_runs")

    def tick(cursor: str | None) -> str | None:
        context = dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            resources={"installation": installation},
            repository_def=definitions.get_repository_def(),
        )
        return str(sensor.evaluate_tick(context).cursor)

    began = tick(None)
    tags = {TENANT_TAG: TENANT} if is_of_tenant else {}
    failed = nightly_work.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
    tick(tick(began))
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    rows = connection.execute("SELECT tenant_id, event, subject, facts FROM alerts").fetchall()
    if not is_of_tenant:
        assert rows == []
        return
    ((tenant, event, subject, facts),) = rows
    assert (tenant, event, subject) == (TENANT, "run_failed", "The run nightly_work failed in broken")
    assert facts == {
        "job": "nightly_work",
        "runId": failed.run_id,
        "failedSteps": ["broken"],
        "trigger": None,
    }


def test_settings_of_one_tenant_or_of_all_are_read_at_once(
    installation: Installation, connection: psycopg.Connection[Any]
) -> None:
    add_tenant(connection, "other")
    set_pipeline(connection, search={"minutes": 5})
    set_pipeline(connection, "other", search={"minutes": 6})
    url = installation.database_url()
    assert read_pipeline_settings(url, "other") == {"other": {"search": {"minutes": 6}}}
    assert set(read_pipeline_settings(url)) == {TENANT, "other"}
    assert read_pipeline_settings(url, "nobody") == {}
