"""The pipeline deletes old versions of all tenants, but none in a release, and none of a tenant that trains now."""

from dataclasses import replace
from pathlib import Path

import dagster as dg

from configs.retention import RetentionSettings
from pipelines.defs.retention.sensors import old_models
from pipelines.defs.training.steps import tracking_of
from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.resources import Installation
from serving.release import ReleaseMember, publish

FAMILY = "popularity"

HYBRID = "hybrid"


def test_a_tick_deletes_what_no_release_holds_and_passes_over_who_trains(
    installation: Installation, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    installation = replace(installation, retention=RetentionSettings(model_versions=10, mlflow_deleted_days=0))
    tracking, client = tracking_of(installation), tracking_of(installation).client
    for tenant in ("busy", "quiet"):
        client.create_registered_model(f"{tenant}.{FAMILY}")
        for _ in range(13):
            run = client.create_run(tracking.experiment_id(tenant)).info
            client.create_model_version(f"{tenant}.{FAMILY}", source=run.artifact_uri, run_id=run.run_id)
    model, items = tmp_path / "model", tmp_path / "items.parquet"
    model.mkdir()
    for file in (model / "weights", items):
        file.touch()
    publish("quiet", {FAMILY: ReleaseMember("2", model)}, items, 1, home=installation.paths.bentoml)
    instance.add_dynamic_partitions(TENANTS, ["busy", "quiet"])
    job = dg.define_asset_job(RETRAIN).resolve(asset_graph=dg.Definitions().resolve_asset_graph())
    run = instance.create_run_for_job(job, tags={TENANT_TAG: "busy"}, status=dg.DagsterRunStatus.STARTED)

    def tick() -> str:
        found = old_models(dg.build_sensor_context(instance, resources={"installation": installation}))
        assert isinstance(found, dg.SensorResult) and found.cursor == ""
        return str(found.skip_reason)

    def left(tenant: str) -> set[str]:
        return {str(each.version) for each in client.search_model_versions(f"name = '{tenant}.{FAMILY}'")}

    everything = {str(number) for number in range(1, 14)}
    assert "2 old versions deleted" in tick()
    assert left("quiet") == everything - {"1", "3"} and left("busy") == everything
    instance.report_run_failed(run)
    assert "3 old versions deleted" in tick()
    assert left("busy") == everything - {"1", "2", "3"}


def test_a_tenant_whose_ensemble_has_no_files_holds_up_no_other(
    installation: Installation, instance: dg.DagsterInstance
) -> None:
    installation = replace(installation, retention=RetentionSettings(model_versions=10, mlflow_deleted_days=0))
    tracking, client = tracking_of(installation), tracking_of(installation).client
    for tenant, family, count in (("broken", HYBRID, 1), ("whole", FAMILY, 11)):
        client.create_registered_model(f"{tenant}.{family}")
        for _ in range(count):
            run = client.create_run(tracking.experiment_id(tenant)).info
            client.create_model_version(f"{tenant}.{family}", source=run.artifact_uri, run_id=run.run_id)
    instance.add_dynamic_partitions(TENANTS, ["broken", "whole"])
    found = old_models(dg.build_sensor_context(instance, resources={"installation": installation}))
    assert isinstance(found, dg.SensorResult) and found.cursor == ""
    assert "1 old versions deleted; those of 1 tenants could not be" in str(found.skip_reason)
    assert len(client.search_model_versions(f"name = 'whole.{FAMILY}'")) == 10
