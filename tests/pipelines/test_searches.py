"""Searches of a tiny tenant: a real database, a real MLflow store and a real Dagster instance."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import psycopg
import pytest
from pydantic import SecretStr

from configs.pipelines import PipelineSettings
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from configs.tracking import TrackingSettings
from pipelines.definitions import build_definitions
from pipelines.defs.ingestion.tenant_deletion import delete_tenant_files
from pipelines.defs.training.configurations import chosen_configuration
from pipelines.defs.training.steps import TrainingRun, tracking_of
from pipelines.defs.tuning.assets import MINUTES_TAG
from pipelines.defs.tuning.records import search_record, snapshot_value
from pipelines.jobs import GENERATE, RETRAIN, SEARCH
from pipelines.partitions import TENANT_TAG, TENANTS
from pipelines.resources import Installation
from tests.feature_store.rows import add_interactions, add_items, add_tenant
from tests.fixtures.mlflow_store import mlflow_store
from tests.pipelines.conftest import TENANT
from tests.pipelines.test_automation import tick
from training.models.popularity import PopularityConfig
from training.tracking.searches import SEARCH_FILE, adopted_search, tuning_experiment

pytestmark = [pytest.mark.service, pytest.mark.fit]

FAMILY = dg.AssetKey(["configuration", "popularity"])


def fill(connection: psycopg.Connection[Any]) -> None:
    """What is popular changes within a day, so that a short half-life is far better than the default."""
    rng = np.random.default_rng(0)
    add_tenant(connection, TENANT)
    add_items(connection, TENANT, {f"item-{n}": {} for n in range(120)})
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for day in range(40):
        at = start + timedelta(days=day)
        events = [(f"user-{rng.integers(80)}", f"item-{2 * day + rng.integers(12)}") for _ in range(40)]
        add_interactions(connection, TENANT, events, at=at)


@dataclass
class Searched:
    installation: Installation
    instance: dg.DagsterInstance

    def train(self) -> dg.ExecuteInProcessResult:
        names = ["lake_interactions", "lake_items", "feature_snapshot", "training_plan", "popularity"]
        result = self.execute(RETRAIN, [dg.AssetKey(name) for name in names])
        assert result.success
        return result

    def search(self, minutes: float = 1) -> dg.ExecuteInProcessResult:
        result = self.execute(SEARCH, [FAMILY], {MINUTES_TAG: str(minutes)})
        assert result.success
        return result

    def execute(self, job: str, assets: list[dg.AssetKey], tags: dict[str, str] | None = None) -> Any:
        return (
            build_definitions(self.installation)
            .resolve_job_def(job)
            .execute_in_process(instance=self.instance, partition_key=TENANT, asset_selection=assets, tags=tags)
        )

    def run(self) -> TrainingRun:
        value = snapshot_value(self.installation.paths, TENANT)
        assert value is not None
        return TrainingRun.on(self.installation, value)


@pytest.fixture(scope="module")
def searched(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    state = tmp_path_factory.mktemp("state")
    installation = Installation(
        paths=PathSettings(state_dir=state),
        database=DatabaseSettings(url=SecretStr(module_database_url)),
        pipeline=PipelineSettings(first_model_after=100, train_seconds=2, train_threads=1),
        tracking=TrackingSettings(uri=mlflow_store(state)),
    )
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        fill(connection)
    home = tmp_path_factory.mktemp("dagster")
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
        instance.add_dynamic_partitions(TENANTS, [TENANT])
        found = Searched(installation, instance)
        found.train()
        yield found


def metadata(result: dg.ExecuteInProcessResult, node: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(node)
    return dict(event.metadata)


def wanted(searched: Searched, **settings: Any) -> list[dg.RunRequest] | str:
    """What the sensor asks for, or why it asks for nothing."""
    pipeline = searched.installation.pipeline.model_copy(update=settings)
    answer = tick(replace(searched.installation, pipeline=pipeline), searched.instance, "searches")
    return answer.skip_message if isinstance(answer, dg.SkipReason) else answer.run_requests


def start_run(instance: dg.DagsterInstance, name: str, status: dg.DagsterRunStatus, tenant: str) -> str:
    @dg.job(name=name)
    def job() -> None: ...

    return instance.create_run_for_job(job, status=status, tags={TENANT_TAG: tenant}).run_id


def test_a_search_begins_when_nothing_is_trained_and_minutes_are_left(searched: Searched) -> None:
    (request,) = wanted(searched)  # one family was trained, and it was never searched
    assert (request.partition_key, request.asset_selection) == (TENANT, [FAMILY])
    assert request.tags[MINUTES_TAG] == "20" and request.tags["trigger"] == "never searched to the end"
    assert "0 of 0 minutes" in wanted(searched, search_minutes_per_day=0)
    for job, status in ((RETRAIN, "NOT_STARTED"), (RETRAIN, "STARTED"), (GENERATE, "NOT_STARTED"), (SEARCH, "STARTED")):
        run_id = start_run(searched.instance, job, dg.DagsterRunStatus[status], "another-tenant")
        assert run_id in wanted(searched)
        searched.instance.delete_run(run_id)


def test_a_search_ends_at_once_where_a_training_waits_and_stays_due(searched: Searched) -> None:
    run_id = start_run(searched.instance, RETRAIN, dg.DagsterRunStatus.NOT_STARTED, "another-tenant")
    result = searched.search()
    assert not result.asset_materializations_for_node("configuration__popularity")
    assert search_record(searched.installation.paths, TENANT, "popularity") is None
    searched.instance.delete_run(run_id)


def test_what_a_search_finds_better_is_what_trainings_use(searched: Searched) -> None:
    before = chosen_configuration(searched.run(), "popularity")
    assert before.source == "default for the data"
    told = metadata(searched.search(), "configuration__popularity")
    assert told["adopted"].value and told["improvement_low"].value > 0 and told["trials"].value > 5
    assert told["ndcg_at_10"].value > told["ndcg_at_10_of_base"].value
    chosen = chosen_configuration(searched.run(), "popularity")
    assert isinstance(chosen.config, PopularityConfig) and isinstance(before.config, PopularityConfig)
    assert chosen.config.half_life_days < before.config.half_life_days / 3

    client = tracking_of(searched.installation).client
    experiment = client.get_experiment_by_name(tuning_experiment(TENANT))
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.tags["adopted"] == "true" and parent.data.tags["began_with"] == "default for the data"
    assert len(runs) == 1 + told["trials"].value

    trained = searched.train()
    assert parent.info.run_id in metadata(trained, "popularity")["hyper_parameters_from"].value
    assert metadata(trained, "popularity")["hyper_parameters"].value == chosen.config.model_dump(mode="json")
    assert wanted(searched).startswith("0 searches are due")  # type: ignore[union-attr]


def test_a_search_that_shows_nothing_better_changes_nothing(searched: Searched) -> None:
    before = chosen_configuration(searched.run(), "popularity")
    told = metadata(searched.search(0.05), "configuration__popularity")
    assert not told["adopted"].value and "trainings use what they used before" in told["summary"].value
    assert chosen_configuration(searched.run(), "popularity") == before
    record = search_record(searched.installation.paths, TENANT, "popularity")
    assert record is not None and record.completed_at == record.attempted_at and not record.adopted


def test_a_configuration_that_cannot_be_read_leaves_the_default_and_says_why(searched: Searched) -> None:
    tracking = tracking_of(searched.installation)
    found = adopted_search(tracking, TENANT, "popularity")
    assert found is not None
    for text, reason in (
        ('{"config": {"a_name_of_yesterday": 1}, "promising": [], "ended_at": ""}', "a_name_of_yesterday"),
        ("no JSON", "cannot be read"),
    ):
        tracking.client.log_text(found.run_id, text, SEARCH_FILE)
        chosen = chosen_configuration(searched.run(), "popularity")
        assert reason in chosen.source and chosen.source.startswith("default for the data")
    assert "cannot be read" in metadata(searched.train(), "popularity")["hyper_parameters_from"].value


def test_a_deleted_tenant_leaves_no_search(searched: Searched) -> None:
    delete_tenant_files(searched.installation, TENANT)
    assert adopted_search(tracking_of(searched.installation), TENANT, "popularity") is None
    assert search_record(searched.installation.paths, TENANT, "popularity") is None
