"""MLflow as a data scientist sees it: runs with figures, versions with an alias, models that load without pickle."""

import importlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest

from feature_store import columns as c
from tests.fixtures.mlflow_store import mlflow_store
from tests.fixtures.platform import ROOT
from tests.training.catalogue import build_dataset
from training.evaluation.calibration import ScoreMap
from training.evaluation.promotion import Decision, PromotionVerdict, load_policy
from training.evaluation.promotion_report import PromotionReport
from training.evaluation.report import EvaluationReport
from training.evaluation.stored_config import UnreadableConfig
from training.models.contract import RuntimeOptions
from training.models.registry import load_model
from training.tracking import stored_names
from training.tracking.mlflow_store import Tracking
from training.tracking.old_versions import KeptVersions, delete_old_versions
from training.tracking.versions import ModelRef, UnknownVersionError, UnreadableReportError
from training.train import TrainedModel, train_family

pytestmark = pytest.mark.fit

OPTIONS = RuntimeOptions(threads=1, seed=5)
DATASET = build_dataset()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    folder = tmp_path_factory.mktemp("mlflow")
    return Tracking(mlflow_store(folder), folder / "artifacts")


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return train_family("collaborative", DATASET, options=OPTIONS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """A real MLflow server on a free port."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", mlflow_store(folder), "--artifacts-destination", str(folder / "a")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
        yield Tracking(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=30)


def judge(store: Tracking, ref: ModelRef, trained: TrainedModel, promote: bool, reason: str = "good") -> None:
    """Record a decision about a version, with its report."""
    verdict = PromotionVerdict.PASSED if promote else PromotionVerdict.REFUSED
    decision = Decision(promote, reason, verdict)
    store.record_promotion(
        ref,
        PromotionReport.of(decision, ref.version, trained.report, None, load_policy(), None, "2026-11-28T10:00:00Z"),
    )


def frame_of(user: int) -> pd.DataFrame:
    past = DATASET.histories(np.array([user], dtype=np.int32))
    return pd.DataFrame(
        {
            "items": [past.items.astype(np.int64)],
            "types": [[c.INTERACTION_TYPES[code] for code in past.types]],
            "weights": [past.weights.astype(np.float64)],
            "timestamps": [past.timestamps],
        }
    )


def scores_of(trained: TrainedModel, user: int) -> np.ndarray:
    return trained.model.score(DATASET.histories(np.array([user], np.int32)))


def test_a_run_holds_parameters_metrics_protocol_and_the_report(store: Tracking, trained: TrainedModel) -> None:
    ref = store.log(trained, "acme", tags={"dagster_run": "r-1"})
    run = store.client.get_run(ref.run_id)
    assert run.info.status == "FINISHED"
    assert store.client.get_experiment(run.info.experiment_id).name == "acme"
    assert float(run.data.params["regularisation"]) == trained.config.regularisation  # type: ignore[attr-defined]
    assert run.data.metrics["all/ndcg_at_10"] == trained.report.metric("ndcg@10")
    assert run.data.metrics["random/all/ndcg_at_10"] == trained.report.metric("ndcg@10", model="random")
    for tag, value in {
        "protocol": "temporal",
        "split_hash": trained.report.split_hash,
        "seed": "5",
        "dagster_run": "r-1",
    }.items():
        assert run.data.tags[tag] == value
    assert store.report(ref) == trained.report
    (model,) = store.client.search_logged_models([run.info.experiment_id])
    assert model.artifact_location.startswith(f"file://{store.artifacts}/acme/")


def test_a_version_has_a_card_and_its_run_shows_data_code_and_plots(store: Tracking, trained: TrainedModel) -> None:
    ref = store.log(trained, "shown")
    run, report = store.client.get_run(ref.run_id), trained.report
    card = store.client.get_model_version(ref.name, ref.version).description
    reached = report.estimate("ndcg@10", "warm")
    assert len(card) <= 5_000 and run.data.tags["mlflow.note.content"] == card
    for words in (
        f"{len(DATASET.interactions):,} interactions of {DATASET.n_users} users",
        report.protocol[1:],
        f"{reached.mean:.4f} ({reached.low:.4f} to {reached.high:.4f})",
        "**Limits**",
        f"models:/shown.collaborative/{ref.version}",
    ):
        assert words in card
    assert "`champion`" in store.client.get_registered_model(ref.name).description
    assert run.data.metrics["ndcg_at_10"] == run.data.metrics["all/ndcg_at_10"] == report.metric("ndcg@10")
    (model,) = store.client.search_logged_models([run.info.experiment_id])
    assert "ndcg_at_10" in {metric.key for metric in model.metrics}

    inputs = {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs}
    assert inputs["evaluation"].digest == report.split_hash
    assert json.loads(inputs["training"].profile)["users"] == DATASET.n_users
    assert run.data.tags["mlflow.source.name"] == "training/train.py" and run.data.tags["code_version"]
    short = {name: text for name, text in run.data.tags.items() if name not in ("mlflow.note.content",)}
    assert max(map(len, short.values())) <= 100 and str(ROOT) not in str([card, *short.values()])
    plots = {Path(each.path).stem: each.file_size for each in store.client.list_artifacts(ref.run_id, "plots")}
    assert plots.keys() >= {"segments", "reliability", "popularity"} and max(plots.values()) < 100_000


def test_a_metric_named_after_two_metadata_fields_is_logged(store: Tracking, trained: TrainedModel) -> None:
    notes = {**trained.report.notes, "weight_brand & größe @ home": 0.25}
    ref = store.log(replace(trained, report=trained.report.model_copy(update={"notes": notes})), "fields")
    assert store.client.get_run(ref.run_id).data.metrics["fit/weight_brand _ größe _at_ home"] == 0.25


def test_the_next_forecast_goes_by_what_the_newest_trainings_took(store: Tracking, trained: TrainedModel) -> None:
    assert store.past_trainings("past", "collaborative") == []
    store.log(trained, "past")
    (past,) = store.past_trainings("past", "collaborative")
    notes = trained.report.notes
    assert (past.rows, past.work) == (notes["rows"], notes["work"])
    assert (past.cpu_seconds, past.peak_mb) == (trained.usage.cpu_seconds, trained.usage.peak_mb)
    assert store.past_trainings("past", "popularity") == [] == store.past_trainings("shop", "popularity")
    second = train_family("collaborative", DATASET, options=RuntimeOptions(), past=[past])
    assert second.report.notes["forecast_trainings"] == 1
    run = store.client.get_run(store.log(second, "past").run_id)
    assert run.data.metrics["fit/forecast_cpu_seconds"] == second.report.notes["forecast_cpu_seconds"]
    assert len(store.past_trainings("past", "collaborative")) == 2


def test_the_registered_model_is_plain_files_with_a_signature_and_scores_the_same(
    store: Tracking, trained: TrainedModel, tmp_path: Path
) -> None:
    ref = store.log(trained, "plain")
    folder = store.download(ref, tmp_path / "model")
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".npz", ".safetensors"}
    histories = DATASET.histories()
    assert np.array_equal(load_model(folder).score(histories), trained.model.score(histories))
    assert ScoreMap.load(folder) == trained.score_map
    mlflow.set_registry_uri(store.uri)
    mlflow.set_tracking_uri(store.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{ref.name}/{ref.version}")
    assert loaded.metadata.signature is not None
    assert np.allclose(loaded.predict(frame_of(3)), trained.model.score(DATASET.histories(np.array([3], np.int32))))


def test_the_alias_moves_by_decision_only_and_can_be_moved_back(store: Tracking, trained: TrainedModel) -> None:
    assert store.champion("shop", "collaborative") is None
    first, second = store.log(trained, "shop"), store.log(trained, "shop")
    assert store.champion("shop", "collaborative") is None
    judge(store, first, trained, True, "good")
    judge(store, second, trained, False, "worse")
    assert store.champion("shop", "collaborative") == first
    refused = store.client.get_model_version(second.name, second.version)
    assert store.promotion_report(second).verdict == refused.tags["promotion_verdict"] == "refused"
    assert {file.path for file in store.client.list_artifacts(second.run_id, "promotion")} == {
        "promotion/promotion.json",
        "promotion/promotion.md",
    }
    assert refused.tags["promotion_reason"] == "worse"
    assert refused.tags["warm/ndcg_at_10"] == f"{trained.report.metric('ndcg@10', 'warm'):.4f}"
    by_hand = {"by": "ann", "reason": "the first one shows sold-out items"}
    assert store.promote_by_hand("shop", "collaborative", second.version, **by_hand) == second
    assert store.champion("shop", "collaborative") == second
    chosen = store.client.get_model_version(second.name, second.version).tags
    assert (chosen["promotion_overridden_by"], chosen["promotion_override_reason"]) == ("ann", by_hand["reason"])
    for unknown in ("99", "newest"):
        with pytest.raises(UnknownVersionError):
            store.promote_by_hand("shop", "collaborative", unknown, **by_hand)


def test_a_family_that_lost_its_champion_is_told_from_one_that_never_had_one(
    store: Tracking, trained: TrainedModel
) -> None:
    assert store.last_promoted("lost", "collaborative") is None
    ref, refused = store.log(trained, "lost"), store.log(trained, "lost")
    judge(store, ref, trained, True, "good")
    judge(store, refused, trained, False, "worse")
    store.client.delete_registered_model_alias(ref.name, "champion")
    assert store.champion("lost", "collaborative") is None
    assert store.last_promoted("lost", "collaborative") == "version 1"
    assert store.last_promoted("lost", "popularity") is None
    store.client.delete_model_version(ref.name, ref.version)
    assert store.last_promoted("lost", "collaborative") == f"a deleted version of run {ref.run_id}"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"results": 3}'])
def test_a_report_that_is_missing_or_damaged_is_an_error_of_its_own(
    store: Tracking, trained: TrainedModel, content: str | None
) -> None:
    ref = store.log(trained, "damaged")
    if content is None:
        folder = store.client.get_run(ref.run_id).info.artifact_uri.removeprefix("file://")
        (Path(folder) / "evaluation.json").unlink()
    else:
        store.client.log_text(ref.run_id, content, "evaluation.json")
    with pytest.raises(UnreadableReportError, match=r"evaluation\.json cannot be read"):
        store.report(ref)


def test_what_earlier_versions_logged_is_read_under_todays_names(store: Tracking, trained: TrainedModel) -> None:
    """Tags, the report with an untyped configuration in its notes, and the loader that their models name."""
    ref = store.log(trained, "earlier")
    store.client.set_tag(ref.run_id, "promotion", "good")
    report = trained.report.model_dump(mode="json")
    report["notes"]["config"] = report.pop("config")
    del report["family"]
    store.client.log_text(ref.run_id, json.dumps(report), "evaluation.json")
    assert store.tags(ref)["promotion_reason"] == "good"
    assert store.report(ref) == trained.report
    assert stored_names.current_names({"components": {"popularity": "1"}}, stored_names.RENAMED_METADATA) == {
        "base_models": {"popularity": "1"}
    }
    logged = Path(mlflow.artifacts.download_artifacts(f"models:/{ref.name}/{ref.version}", tracking_uri=store.uri))
    loader = importlib.import_module("training.tracking")  # what every logged model names
    assert np.array_equal(loader._load_pyfunc(str(logged / "model")).predict(frame_of(3)), scores_of(trained, 3))


def test_todays_name_wins_where_both_spellings_are_there() -> None:
    found = {"gain": 1.0, "improvement": 2.0, "other": 3.0}
    assert stored_names.current_names(found, stored_names.RENAMED_METRICS) == {"improvement": 2.0, "other": 3.0}


def test_a_configuration_that_todays_code_cannot_build_stays_in_its_report(trained: TrainedModel) -> None:
    values = trained.report.model_dump(mode="json")
    values["config"] = {**values["config"], "renamed_away": 1}
    report = EvaluationReport.model_validate(values)
    assert isinstance(report.config, UnreadableConfig)
    assert "renamed_away: Extra inputs are not permitted" in report.config.reason
    assert report.model_dump(mode="json") == values
    gone = EvaluationReport.model_validate({**values, "family": "oracle"})
    assert isinstance(gone.config, UnreadableConfig) and "'oracle' is not installed" in gone.config.reason


def test_tenants_do_not_see_each_other(store: Tracking, trained: TrainedModel) -> None:
    ref = store.log(trained, "left")
    judge(store, ref, trained, True, "good")
    assert store.champion("right", "collaborative") is None
    assert store.champion("left", "collaborative") == ref


def test_an_ensemble_is_registered_with_the_versions_it_serves_with(store: Tracking, trained: TrainedModel) -> None:
    popularity = train_family("popularity", DATASET, options=OPTIONS)
    base_models = {"collaborative": trained, "popularity": popularity}
    ensemble = train_family("hybrid", DATASET, options=OPTIONS, base_models=base_models)
    refs = {name: store.log(one, "ensemble") for name, one in base_models.items()}
    ref = store.log(ensemble, "ensemble", {name: one.version for name, one in refs.items()})
    assert store.base_models(ref) == refs
    assert store.base_models(refs["popularity"]) == {}
    mlflow.set_registry_uri(store.uri)
    mlflow.set_tracking_uri(store.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{ref.name}/{ref.version}")
    assert np.allclose(loaded.predict(frame_of(3)), ensemble.model.score(DATASET.histories(np.array([3], np.int32))))


def test_the_logged_model_holds_no_example_of_a_history(store: Tracking, trained: TrainedModel) -> None:
    ref = store.log(trained, "private")
    model = mlflow.models.get_model_info(f"models:/{ref.name}/{ref.version}")
    assert model.signature is not None
    assert model.saved_input_example_info is None


def test_a_failed_log_leaves_a_failed_run(store: Tracking, trained: TrainedModel, tmp_path: Path) -> None:
    class Unwritable:
        def __getattr__(self, name: str) -> object:
            if name == "save_served":
                raise OSError("disk full")
            return getattr(trained, name)

    with pytest.raises(OSError, match="disk full"):
        store.log(Unwritable(), "broken")  # type: ignore[arg-type]
    experiment = store.client.get_experiment_by_name("broken")
    assert experiment is not None
    (run,) = store.client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


def test_a_server_keeps_the_same_promises(server: Tracking, trained: TrainedModel, tmp_path: Path) -> None:
    first = server.log(trained, "remote")
    ref = server.log(trained, "remote")
    judge(server, ref, trained, True, "good")
    assert server.champion("remote", "collaborative") == ref != first
    assert server.report(ref) == trained.report
    folder = server.download(ref, tmp_path / "model")
    histories = DATASET.histories()
    assert np.array_equal(load_model(folder).score(histories), trained.model.score(histories))


@pytest.mark.parametrize("header", [{"Origin": "https://elsewhere.example"}, {"Host": "elsewhere.example"}])
def test_pages_of_other_sites_cannot_use_the_server(server: Tracking, header: dict[str, str]) -> None:
    url = f"{server.uri}/api/2.0/mlflow/experiments/create"
    response = httpx.post(url, json={"name": "foreign"}, headers=header)
    assert response.status_code == 403
    assert server.client.get_experiment_by_name("foreign") is None


def test_old_versions_go_through_a_server_with_their_artefacts(server: Tracking, trained: TrainedModel) -> None:
    refs = [server.log(trained, "old") for _ in range(2)]
    assert delete_old_versions(server, "old", KeptVersions(newest=1, rollbacks=1), {}, ["hybrid"], 10) == (1, False)
    with pytest.raises(UnknownVersionError):
        server.version("old", "collaborative", refs[0].version)
    run = server.client.get_run(refs[0].run_id)
    assert run.info.lifecycle_stage == "deleted" and run.info.artifact_uri.startswith("mlflow-artifacts:")
    models = server.client.search_logged_models([run.info.experiment_id])
    assert [model.source_run_id for model in models] == [refs[1].run_id]
    assert server.client.list_artifacts(refs[0].run_id) == []
    assert server.base_model_versions(refs[1]) == {}
