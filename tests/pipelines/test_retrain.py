"""The whole job on a tenant small enough to train in seconds: real database, real MLflow store, real release."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from api.database.scope import TenantScope
from api.imports.load import load_files
from api.tenants.service import delete_tenant
from configs.pipelines import PipelineSettings
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from configs.tracking import TrackingSettings
from feature_store.lake import TenantLake
from feature_store.loaders.mapping import Mapping
from pipelines.__main__ import app as pipelines
from pipelines.definitions import build_definitions
from pipelines.defs.monitoring.assets import CHECKS
from pipelines.defs.training.steps import POSITIONS_TAG, TrainingRun, tracking_of
from pipelines.defs.training.training_inputs import FORCE_TAG, INPUTS_TAG, SKIPPED_TAG, last_inputs, what_is_new
from pipelines.jobs import LAKE, PUBLISH, RETRAIN
from pipelines.partitions import GENERATION_TENANT_TAG, TENANTS
from pipelines.resources import Installation
from pipelines.resume import NothingToResumeError, failed_run, resume
from serving.contracts.histories import pack_history
from serving.contracts.messages import ALGORITHMS, BatchRequest, HistoryEvent, RecommendQuery
from serving.predictor import Predictor
from serving.release import list_releases, newest_manifest, release_folder
from tests.api.conftest import Tenants, configuration_of, running
from tests.feature_store.rows import add_interactions, add_items, add_tenant
from tests.fixtures.platform import wait_until
from tests.fixtures.portal import ROOMY, Portal
from tests.fixtures.search import files_with, tables_with
from tests.pipelines.conftest import TENANT
from training.models.registry import families
from training.tracking.mlflow_store import Tracking

GENRES = ("drama", "comedy", "horror")
N_USERS, N_EVENTS = 60, 14


def fill(url: str) -> None:
    """Users who stay within one genre, so that there is something to learn; the popular item of each is its first."""
    rng = np.random.default_rng(0)
    start = np.datetime64("2024-01-01", "s")
    with psycopg.connect(url) as connection:
        add_tenant(connection, TENANT)
        items = {f"{genre}-{n}": {"title": f"{genre} {n}", "genre": genre} for genre in GENRES for n in range(15)}
        add_items(connection, TENANT, items)
        for user in range(N_USERS):
            chosen = rng.permutation(15)[:N_EVENTS]
            for item in chosen:
                seconds = int(rng.integers(0, 30 * 86_400))
                add_interactions(
                    connection,
                    TENANT,
                    [(f"user-{user}", f"{GENRES[user % 3]}-{item}")],
                    at=(start + seconds).item().replace(tzinfo=UTC),
                )


@dataclass
class Trained:
    installation: Installation
    instance: dg.DagsterInstance
    result: dg.ExecuteInProcessResult

    def metadata(self, asset: str) -> dict[str, Any]:
        (event,) = self.result.asset_materializations_for_node(asset)
        return dict(event.metadata)


def run(installation: Installation, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = build_definitions(installation).resolve_job_def(RETRAIN)
    return job.execute_in_process(instance=instance, partition_key=TENANT, raise_on_error=False)


@pytest.fixture(scope="module")
def trained(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    state = tmp_path_factory.mktemp("state")
    installation = Installation(
        paths=PathSettings(state_dir=state),
        database=DatabaseSettings(url=SecretStr(module_database_url)),
        pipeline=PipelineSettings(first_model_after=100, train_seconds=2, train_threads=1),
        tracking=TrackingSettings(uri=None),
    )
    fill(module_database_url)
    home = tmp_path_factory.mktemp("dagster")
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
        instance.add_dynamic_partitions(TENANTS, [TENANT])
        yield Trained(installation, instance, run(installation, instance))


def test_every_asset_is_made_and_every_check_passes(trained: Trained) -> None:
    assert trained.result.success
    made = {event.asset_key.path[-1] for event in trained.result.get_asset_materialization_events()}
    assert made == {
        *("lake_interactions", "lake_items", "feature_snapshot", "training_plan"),
        *("evaluation", "champions", "release"),
        *("daily_activity", "daily_accuracy", "drift", "pipeline_settings", "item_lists", "segment_members"),
        *(family.replace("-", "_") for family in families()),
    }
    checks = trained.result.get_asset_check_evaluations()
    lake = [check for check in checks if check.asset_key.path[-1] != "drift"]
    assert len(lake) == 7
    assert all(check.passed and check.blocking for check in lake)
    assert {check.check_name for check in checks if check not in lake} == set(CHECKS)
    assert all(check.passed and not check.blocking for check in checks if check not in lake)
    assert {check.partition for check in checks} == {TENANT}


def test_every_family_is_in_the_registry_and_the_run_knows_its_origin(trained: Trained) -> None:
    paths = trained.installation.paths
    tracking = Tracking(trained.installation.tracking.resolve(paths))
    for family in families():
        version = tracking.version(TENANT, family, "1")
        tags = tracking.client.get_run(version.run_id).data.tags
        assert tags["dagster_run"] == trained.result.run_id
        assert tags["catalogue_version"] == "1"
    assert tracking.champion(TENANT, "popularity") is not None
    assert tracking.champion(TENANT, "collaborative") is not None


def test_champions_are_noted_with_their_held_out_auc(trained: Trained, module_database_url: str) -> None:
    tracking = trained.installation.tracking
    store = Tracking(tracking.resolve(trained.installation.paths))
    with psycopg.connect(module_database_url) as connection:
        rows = connection.execute(
            "SELECT family, version, auc FROM release_models WHERE tenant_id = %s AND release = %s",
            [TENANT, list_releases(trained.installation.paths.bentoml)[TENANT][-1]],
        ).fetchall()
    champions = {family: store.champion(TENANT, family) for family in ALGORITHMS}
    assert "collaborative" in {family for family, _, _ in rows}
    assert len(rows) == sum(champion is not None for champion in champions.values())
    for family, version, auc in rows:
        report = store.report(store.version(TENANT, family, version))
        assert auc == report.metric("auc")
    assert dict((family, auc) for family, _, auc in rows)["collaborative"] > 0.5


def test_the_release_answers_from_its_models(trained: Trained) -> None:
    home = trained.installation.paths.bentoml
    (release,) = list_releases(home)[TENANT]
    predictor = Predictor.load(release_folder(home, TENANT, release), max_events=200)
    history = [HistoryEvent(f"horror-{n}", "like", 0.8, n) for n in range(4)]
    query = RecommendQuery("collaborative", 5, pack_history(history), exclude=[event.item_id for event in history])
    answer = predictor.answer(BatchRequest(TENANT, 1, [query])).answers[0]
    assert not isinstance(answer, str)  # an error
    assert len(answer) == 5
    assert sum(item.item_id.startswith("horror") for item in answer) >= 4


def test_metadata_is_worth_reading_and_names_no_user(trained: Trained) -> None:
    snapshot = trained.metadata("feature_snapshot")
    assert snapshot["dagster/partition_row_count"].value == N_USERS * N_EVENTS
    assert snapshot["users"].value == N_USERS
    pictures = [snapshot[name].md_str for name in ("interactions_per_day", "item_popularity")]
    pictures.append(trained.metadata("evaluation")["ndcg_at_10"].md_str)
    for markdown in pictures:
        assert base64.b64decode(markdown.split("base64,")[1].rstrip(")")).startswith(b"\x89PNG")
    rows = trained.metadata("evaluation")["comparison"].records
    assert {row.data["model"] for row in rows} == {*families(), "random"}
    for family in families():
        found = trained.metadata(family.replace("-", "_"))
        assert found["ndcg_at_10"].value >= 0
        assert "temporal" in found["protocol"].value
    everything = [entry.to_json() for entry in trained.instance.all_logs(trained.result.run_id)]
    assert len(everything) > 50
    assert not [entry for entry in everything if "user-1" in entry]


def test_every_asset_has_one_sentence_and_the_tenants_as_partitions(trained: Trained) -> None:
    graph = build_definitions(trained.installation).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.description.count(". ") == 0
        assert node.description.endswith(".")
        assert node.partitions_def is not None
        assert node.partitions_def.name == TENANTS


def test_nothing_is_pickled_and_no_user_id_is_kept_beside_the_lake(trained: Trained) -> None:
    root = trained.installation.paths.root
    files = [file for file in root.rglob("*") if file.is_file() and root / "lake" not in file.parents]
    assert len(files) > 30
    assert not [file for file in files if file.suffix in {".pkl", ".pickle", ".pt", ".joblib"}]
    assert not [file for file in files if b"user-1" in file.read_bytes()]


def test_a_run_with_nothing_new_trains_nothing_and_says_so(trained: Trained) -> None:
    tracking = tracking_of(trained.installation)
    skipped = run(trained.installation, trained.instance)
    assert skipped.success
    made = {event.asset_key.path[-1] for event in skipped.get_asset_materialization_events()}
    assert made == {
        *("lake_interactions", "lake_items", "feature_snapshot"),
        *("daily_activity", "drift", "pipeline_settings", "item_lists", "segment_members"),
    }
    assert len(tracking.client.search_model_versions(f"name = '{TENANT}.popularity'")) == 1
    (note,) = (event for event in skipped.all_events if event.event_type is dg.DagsterEventType.ASSET_OBSERVATION)
    summary = note.asset_observation_data.asset_observation.metadata["summary"].value
    assert "nothing new since the last training" in summary and "--force" in summary
    stored = trained.instance.get_run_by_id(skipped.run_id)
    assert stored is not None and stored.tags[SKIPPED_TAG] and stored.tags[GENERATION_TENANT_TAG] == TENANT
    inputs = last_inputs(trained.instance, TENANT)
    assert inputs is not None and what_is_new(inputs, inputs) == []
    assert what_is_new({**inputs, "settings": "other"}, inputs) == ["settings"]
    assert what_is_new(inputs, None) == ["first training"]


def test_a_second_run_goes_on_where_it_failed_and_serves_a_new_item(trained: Trained, module_database_url: str) -> None:
    with psycopg.connect(module_database_url) as connection:
        version = add_items(connection, TENANT, {"a-new-drama": {"title": "drama 99", "genre": "drama"}})
        add_interactions(connection, TENANT, [("user-0", "a-new-drama")])
    models = trained.installation.paths.bentoml / "models"
    models.rename(models.with_name("away"))
    models.write_text("no folder, so that nothing can be released")
    second = run(trained.installation, trained.instance)
    assert not second.success
    models.unlink()
    models.with_name("away").rename(models)
    job = build_definitions(trained.installation).resolve_job_def(RETRAIN)
    failed, run_id = failed_run(trained.instance, TENANT), str(uuid4())
    assert failed.run_id == second.run_id
    assert resume(job, trained.instance, failed, run_id, {"trigger": "test"})
    started = trained.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    steps = {entry.dagster_event.step_key for entry in started if entry.dagster_event}
    assert {"release", "daily_accuracy"} <= steps <= {"release", "daily_accuracy", "drift"}  # drift reads a release too
    with pytest.raises(NothingToResumeError, match="success"):
        failed_run(trained.instance, TENANT)
    assert last_inputs(trained.instance, TENANT) == json.loads(failed.tags[INPUTS_TAG])
    decisions = second.output_for_node("champions")
    assert "champion" in decisions["item-knn"]["reason"]
    home = trained.installation.paths.bentoml
    newest, first = list_releases(home)[TENANT]
    assert newest > first
    predictor = Predictor.load(release_folder(home, TENANT, newest), max_events=200)
    history = [HistoryEvent(f"drama-{n}", "like", 0.8, n) for n in range(4)]
    query = RecommendQuery("content-based", 46, pack_history(history))
    answer = predictor.answer(BatchRequest(TENANT, version, [query])).answers[0]
    assert "a-new-drama" in [item.item_id for item in answer]
    work = trained.installation.paths.models / f"tenant={TENANT}"
    assert [folder.name for folder in work.iterdir()] == [second.output_for_node("feature_snapshot")["snapshot_id"]]


def decide_again(trained: Trained) -> dg.ExecuteInProcessResult:
    """The last run's comparison and decisions once more, over the models that it trained."""
    job = build_definitions(trained.installation).resolve_job_def(RETRAIN)
    result = job.execute_in_process(
        instance=trained.instance,
        partition_key=TENANT,
        asset_selection=[dg.AssetKey("evaluation"), dg.AssetKey("champions")],
    )
    assert result.success
    return result


def value_of(trained: Trained, asset: str) -> dict[str, Any]:
    """What an asset handed on last."""
    path = trained.installation.paths.dagster / "values" / asset / f"{TENANT}.json"
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def test_a_renamed_key_in_the_champion_blocks_its_family_until_a_person_decides(
    trained: Trained, module_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = tracking_of(trained.installation)
    run_on_snapshot = TrainingRun.on(trained.installation, value_of(trained, "feature_snapshot"))
    positions = {POSITIONS_TAG: run_on_snapshot.manifest.positions_id}
    newer = tracking.log(run_on_snapshot.load("collaborative"), TENANT, tags=positions)
    champion = tracking.champion(TENANT, "collaborative")
    assert champion is not None and champion != newer
    report = tracking.report(champion).model_dump(mode="json")
    key = next(iter(report["config"]))
    report["config"]["a_name_of_yesterday"] = report["config"].pop(key)
    tracking.client.log_text(champion.run_id, json.dumps(report), "evaluation.json")

    blocked = decide_again(trained)
    decisions = blocked.output_for_node("champions")
    assert [family for family, decision in decisions.items() if decision["blocked"]] == ["collaborative"]
    reason = decisions["collaborative"]["reason"]
    assert "a_name_of_yesterday: Extra inputs are not permitted" in reason and "pipelines promote" in reason
    assert tracking.champion(TENANT, "collaborative") == champion
    (event,) = blocked.asset_materializations_for_node("champions")
    assert event.metadata["blocked"].value == "collaborative"
    assert reason in [row.data["reason"] for row in event.metadata["decisions"].records]
    (event,) = blocked.asset_materializations_for_node("evaluation")
    shown = {row.data["family"]: row.data for row in event.metadata["champions_on_this_window"].records}
    assert "a_name_of_yesterday" in shown["collaborative"]["cannot_be_compared"]
    tags = tracking.client.get_run(value_of(trained, "collaborative")["run_id"]).data.tags
    assert (tags["promotion_blocked"], tags["promoted"], tags["promotion_reason"]) == ("true", "false", reason)

    monkeypatch.setenv("DATABASE_URL", module_database_url)
    monkeypatch.setenv("RECOMMENDAI_STATE_DIR", str(trained.installation.paths.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    command = ["promote", "--tenant", TENANT, "--family", "collaborative", "--by", "ann"]
    because = ["--reason", "checked by hand on the new window"]
    assert CliRunner().invoke(pipelines, [*command, "--version", "999", *because]).exit_code == 1
    assert CliRunner().invoke(pipelines, [*command, "--version", newer.version, "--reason", " "]).exit_code == 1
    assert tracking.champion(TENANT, "collaborative") == champion
    assert CliRunner().invoke(pipelines, [*command, "--version", newer.version, *because]).exit_code == 0
    assert tracking.champion(TENANT, "collaborative") == newer
    tags = tracking.client.get_model_version(newer.name, newer.version).tags
    assert (tags["promotion_overridden_by"], tags["promotion_override_reason"]) == ("ann", because[1])
    assert tags["promotion_overridden_at"]
    assert not decide_again(trained).output_for_node("champions")["collaborative"]["blocked"]


def test_a_family_whose_alias_was_removed_is_not_promoted_as_if_it_were_new(trained: Trained) -> None:
    tracking = tracking_of(trained.installation)
    champion = tracking.champion(TENANT, "item-knn")
    assert champion is not None
    tracking.client.delete_registered_model_alias(champion.name, "champion")
    decision = decide_again(trained).output_for_node("champions")["item-knn"]
    assert decision["blocked"] and "the alias `champion` was removed" in decision["reason"]
    assert tracking.champion(TENANT, "item-knn") is None
    tracking.client.set_registered_model_alias(champion.name, "champion", champion.version)


def requested(trained: Trained) -> list[dg.RunRequest]:
    """What the sensor of moved aliases starts."""
    context = dg.build_sensor_context(instance=trained.instance, resources={"installation": trained.installation})
    result = build_definitions(trained.installation).resolve_sensor_def("moved_aliases")(context)
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or [])


def publish_what_was_chosen(trained: Trained) -> dict[str, str]:
    """Run what the sensor starts, and return the versions in the newest release, by family."""
    (request,) = requested(trained)
    assert request.job_name == PUBLISH
    job = build_definitions(trained.installation).resolve_job_def(PUBLISH)
    assert job.execute_in_process(instance=trained.instance, run_config=request.run_config, tags=request.tags).success
    assert requested(trained) == []
    manifest = newest_manifest(trained.installation.paths.bentoml, TENANT)
    assert manifest is not None
    return {family: model.version for family, model in manifest.families.items()}


def test_what_a_person_chose_is_published_without_a_training_and_held_until_lifted(
    trained: Trained, module_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", module_database_url)
    monkeypatch.setenv("RECOMMENDAI_STATE_DIR", str(trained.installation.paths.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = tracking_of(trained.installation)
    champion = tracking.champion(TENANT, "collaborative")
    assert champion is not None
    if requested(trained):  # the version that the test before promoted by hand
        assert publish_what_was_chosen(trained)["collaborative"] == champion.version
    others = newest_manifest(trained.installation.paths.bentoml, TENANT)
    family = ["--tenant", TENANT, "--family", "collaborative"]

    command = ["rollback", *family, "--by", "ann", "--reason", "odd lists"]
    assert CliRunner().invoke(pipelines, command).exit_code == 0
    versions = publish_what_was_chosen(trained)
    back = tracking.champion(TENANT, "collaborative")
    assert back is not None and back != champion and versions["collaborative"] == back.version
    assert others is not None
    assert {
        **{name: model.version for name, model in others.families.items()},
        "collaborative": back.version,
    } == versions
    decision = decide_again(trained).output_for_node("champions")["collaborative"]
    assert decision["verdict"] == "held" and decision["reason"].startswith("held by ann since ")
    aliases = tracking.model_aliases(back.name)
    assert aliases is not None and aliases.aliases["champion"] == back.version
    assert aliases.aliases["challenger"] == value_of(trained, "collaborative")["version"]

    tracking.client.set_registered_model_alias(back.name, "champion", champion.version)
    assert publish_what_was_chosen(trained)["collaborative"] == champion.version
    assert "held by a person in MLflow" in decide_again(trained).output_for_node("champions")["collaborative"]["reason"]

    assert CliRunner().invoke(pipelines, ["lift", *family]).exit_code == 0
    assert CliRunner().invoke(pipelines, ["lift", *family]).exit_code == 1
    assert decide_again(trained).output_for_node("champions")["collaborative"]["verdict"] != "held"
    with psycopg.connect(module_database_url) as connection:
        noted = connection.execute(
            "SELECT actor, target, detail ->> 'by', detail ->> 'reason' FROM audit_entries "
            "WHERE tenant_id = %s AND action = 'model.rolled_back'",
            [TENANT],
        ).fetchall()
    assert noted == [("command-line", f"collaborative {back.version}", "ann", "odd lists")]


def test_a_champion_of_another_configuration_is_fitted_again_and_compared_in_pairs(trained: Trained) -> None:
    tracking = tracking_of(trained.installation)
    champion = tracking.champion(TENANT, "collaborative")
    assert champion is not None
    on_snapshot = TrainingRun.on(trained.installation, value_of(trained, "feature_snapshot"))
    report = on_snapshot.load("collaborative").report.model_dump(mode="json")
    report["config"]["regularisation"] *= 2
    tracking.client.log_text(champion.run_id, json.dumps(report), "evaluation.json")
    result = decide_again(trained)
    (event,) = result.asset_materializations_for_node("champions")
    picture = event.metadata["differences_collaborative"].md_str
    assert base64.b64decode(picture.split("base64,")[1].rstrip(")")).startswith(b"\x89PNG")
    rows = [row.data for row in event.metadata["differences"].records if row.data["family"] == "collaborative"]
    assert {"warm"} <= {row["segment"] for row in rows} and all(row["low"] <= row["high"] for row in rows)
    version = tracking.version(TENANT, "collaborative", value_of(trained, "collaborative")["version"])
    found = tracking.promotion_report(version)
    assert (
        not found.same_configuration and found.reason == result.output_for_node("champions")["collaborative"]["reason"]
    )
    assert {rail.name for rail in found.rails} >= {"coverage", "query_ms", "model_mb"}
    assert "promotion/differences.png" in {
        file.path for file in tracking.client.list_artifacts(version.run_id, "promotion")
    }


def test_a_version_of_other_item_positions_is_fitted_again_before_it_serves(
    trained: Trained, module_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", module_database_url)
    monkeypatch.setenv("RECOMMENDAI_STATE_DIR", str(trained.installation.paths.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = tracking_of(trained.installation)
    champion = tracking.champion(TENANT, "content-based")
    assert champion is not None
    older = tracking.version(TENANT, "content-based", "1")
    tracking.client.set_registered_model_alias(older.name, "previous", "1")
    tracking.client.set_tag(older.run_id, POSITIONS_TAG, "those of another machine")
    said = CliRunner().invoke(pipelines, ["rollback", "--tenant", TENANT, "--family", "content-based", "--by", "ann"])
    assert said.exit_code == 0
    assert tracking.champion(TENANT, "content-based") == champion  # which serves on until then
    (request,) = requested(trained)
    assert (request.job_name, request.partition_key, request.tags[FORCE_TAG]) == (RETRAIN, TENANT, "true")
    decision = decide_again(trained).output_for_node("champions")["content-based"]
    assert decision["promoted"] and "the configuration of version 1, fitted again, chosen by ann" in decision["reason"]
    assert requested(trained) == [] or requested(trained)[0].job_name == PUBLISH
    assert tracking.end_hold(older.name) is not None


def test_a_failing_check_stops_the_features(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    add_items(connection, TENANT, {"i1": {}})
    add_interactions(connection, TENANT, [("ann", "i1")] * 3)
    result = run(installation, instance)
    assert not result.success
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [(check.asset_key.to_user_string(), check.check_name) for check in failed] == [
        ("lake_interactions", "volume")
    ]
    assert failed[0].description == "3 interactions, 7 more until the first model"
    made = {event.asset_key.path[-1] for event in result.get_asset_materialization_events()}
    assert made == {"lake_interactions", "lake_items", "daily_activity", "pipeline_settings"}
    assert not installation.paths.features.exists()


def test_schema_of_values_between_assets(trained: Trained) -> None:
    values = trained.installation.paths.dagster / "values"
    manifest = json.loads((values / "feature_snapshot" / f"{TENANT}.json").read_text())
    assert manifest["exclude_seen"] == "all"
    assert json.loads((values / "hybrid" / f"{TENANT}.json").read_text())["family"] == "hybrid"
    assert sum(file.stat().st_size for file in values.rglob("*.json")) < 1_000_000


def test_after_an_erasure_and_a_lake_run_only_the_tombstone_knows_the_user(
    trained: Trained, module_database_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    user, paths = f"user-{N_USERS - 1}", trained.installation.paths  # the start of no other user's id
    lines = [f"{user},{item},like,2024-01-01T00:00:00Z" for item in ("no-item", "drama-1")]
    (tmp_path / "rows.csv").write_text("\n".join(["userId,itemId,interactionType,timestamp", *lines]))
    scope = TenantScope(TENANT)
    load_files(module_database_url, scope, Mapping(), None, tmp_path / "rows.csv", paths.rejects, lambda _: None)
    with running(configuration_of(module_database_url, paths.root), limits=ROOMY) as client:
        portal = Portal(client, Tenants(module_database_url))
        admin, key = portal.admin(TENANT), portal.tenants.key(TENANT)
        asked = client.post("/api/v1/recommend", json={"userId": user, "count": 5}, headers=key)
        assert asked.status_code == 200
        wait_until("the answer", lambda: "impressions" in tables_with(module_database_url, user))
        held = files_with(paths.root, user)
        assert {path.parts[0] for path in held} == {"lake", "rejects"}  # nowhere else, however long it was trained on
        assert len(list(paths.features.glob("*/*/manifest.json"))) > 0
        assert client.delete(f"/api/users/{user}", headers=admin).status_code == 204

    job = build_definitions(trained.installation).resolve_job_def(LAKE)
    assert job.execute_in_process(instance=trained.instance, partition_key=TENANT).success

    assert tables_with(module_database_url, user) == {"tombstones"}
    assert files_with(paths.root, user) == {Path("journal/erasures.jsonl")}  # which a restore replays
    assert files_with(Path(trained.instance.root_directory), user) == set()
    assert user not in "".join(capfd.readouterr())
    assert list(paths.features.glob("*/*/manifest.json")) == []  # they hold its history, if under no name
    lake = TenantLake(paths.lake, TENANT)
    assert lake.cursor().rows == sum(pq.read_metadata(file).num_rows for file in lake.interaction_files())
    again = run(trained.installation, trained.instance)
    assert again.success
    assert again.output_for_node("feature_snapshot")["n_users"] == N_USERS - 1
    assert files_with(paths.root, user) == {Path("journal/erasures.jsonl")}


def test_a_deleted_tenant_leaves_nothing_in_files(trained: Trained, module_database_url: str) -> None:
    paths, tracking = trained.installation.paths, trained.installation.tracking
    context = dg.build_sensor_context(instance=trained.instance, resources={"installation": trained.installation})
    sensor = build_definitions(trained.installation).resolve_sensor_def("deleted_tenants")
    assert "no deleted tenant" in sensor(context).skip_message
    assert release_folders(paths)
    Tenants(module_database_url).run(lambda session: delete_tenant(session, TENANT))
    assert sensor(context).skip_message == TENANT
    assert release_folders(paths) == []
    files = [path for path in paths.root.rglob("*") if path.is_file() and path.name != ".lock"]
    left = {path.relative_to(paths.root).parts[0] for path in files}
    assert left <= {"mlflow", "bentoml", "dagster", "journal", "serving.secret"}
    assert [path for path in (paths.mlflow / "artifacts").rglob("*") if path.is_file()] == []
    assert [path for path in (paths.dagster / "values").rglob("*") if path.is_file()] == []
    store = Tracking(tracking.resolve(paths))
    assert store.client.search_registered_models() == []
    assert TENANT not in {experiment.name for experiment in store.client.search_experiments()}
    assert "no deleted tenant" in sensor(context).skip_message


def release_folders(paths: PathSettings) -> list[str]:
    return list(list_releases(paths.bentoml))
