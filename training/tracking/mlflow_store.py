"""Experiments, metrics and the model registry, in MLflow. The only module that imports mlflow.

A tenant has one experiment, named after it, and one registered model per family, `<tenant>.<family>`, whose alias
`champion` is the version that serves. Artefacts are the plain files of a model folder; nothing is pickled, and no
example of a real user's history is logged.
"""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from feature_store.interaction_types import TYPE_CODES
from feature_store.online import Histories
from training.evaluation.promotion import Decision
from training.evaluation.report import EvaluationReport
from training.forecast import PastTraining
from training.models.contract import Recommender
from training.models.registry import load_model
from training.tracking import payload as records
from training.train import TrainedModel
from training.tuning.results import COMPLETE, FAILED, METRIC, PRUNED, StudyResult, TrialResult

CHAMPION = "champion"
REPORT_FILE = "evaluation.json"
_MODEL_FOLDER = "model"  # inside the logged model
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_PAST_TRAININGS = 10
"""The newest ones that correct a forecast."""
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes the user interface open an experiment on runs and charts, not on traces of language models."""

SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(Array(DataType.long), "items"),
            ColSpec(Array(DataType.string), "types"),
            ColSpec(Array(DataType.double), "weights"),
            ColSpec(Array(DataType.long), "timestamps"),
        ]
    ),
    outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
)
"""One row per history, oldest event first, items by position; out come raw scores of all items."""


@dataclass(frozen=True)
class ModelRef:
    """One version of a registered model."""

    tenant_id: str
    family: str
    version: str
    run_id: str

    @property
    def name(self) -> str:
        return registered_name(self.tenant_id, self.family)


def registered_name(tenant_id: str, family: str) -> str:
    return f"{tenant_id}.{family}"


class Tracking:
    """One MLflow server or store.

    Args:
        uri: `http://...` of a server, or `sqlite:///...` of a store.
        artifacts: where a store without a server keeps artefacts; a server decides that itself.
    """

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        self.uri = uri
        self.artifacts = None if uri.startswith("http") else artifacts
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def log(
        self,
        trained: TrainedModel,
        tenant_id: str,
        base_models: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ModelRef:
        """Log a training as one run and register its served model as a new version, without any alias.

        Args:
            trained: what `train_family` returned.
            tenant_id: names the experiment and the registered model.
            base_models: registered versions of an ensemble's base models, by family; they serve together.
            tags: whatever else to find the run by, such as the pipeline's run id.
        """
        report = trained.report
        facts = {
            "tenant": tenant_id,
            "family": trained.family,
            "snapshot_id": report.snapshot_id,
            "split_hash": report.split_hash,
            "protocol": report.protocol,
            "seed": str(trained.seed),
            **(tags or {}),
        }
        created = self.client.create_run(self._experiment(tenant_id), run_name=trained.family)
        self._address_process()
        # The run is the active one while it is filled: MLflow gives a logged model the active run's experiment, and
        # it ends the run as finished or as failed.
        with mlflow.start_run(created.info.run_id) as run, TemporaryDirectory() as folder:
            self._log_figures(run.info.run_id, trained, facts)
            trained.save_served(Path(folder))
            info = Model.log(
                artifact_path=None,
                name=trained.family,
                flavor=SimpleNamespace(save_model=_save_flavor),
                flavor_name="recommendai",
                folder=Path(folder),
                registered_model_name=registered_name(tenant_id, trained.family),
                await_registration_for=60,
                metadata={"tenant": tenant_id, "family": trained.family, "components": dict(base_models or {})},
                tags=facts,
            )
        ref = ModelRef(tenant_id, trained.family, str(info.registered_model_version), created.info.run_id)
        for name, value in records.summary(report).items():
            self.client.set_model_version_tag(ref.name, ref.version, name, value)
        return ref

    @contextmanager
    def sweep(
        self, experiment: str, name: str, facts: Mapping[str, str], searched: Sequence[str]
    ) -> "Iterator[StudyRun]":
        """The run of a search for hyper-parameters, ended with the block: as failed where that raises."""
        run = self.client.create_run(self._experiment(experiment), run_name=name, tags=dict(facts)).info
        try:
            yield StudyRun(self, str(run.experiment_id), str(run.run_id), searched)
        except BaseException:
            self.client.set_terminated(run.run_id, "FAILED")
            raise
        self.client.set_terminated(run.run_id)

    def decided(self, ref: ModelRef, decision: Decision) -> None:
        """Record a decision with the version, and move the alias where it says so."""
        self.client.set_model_version_tag(ref.name, ref.version, "promotion", decision.reason)
        self.client.set_tag(ref.run_id, "promotion", decision.reason)
        self.client.set_tag(ref.run_id, "promoted", str(decision.promote).lower())
        if decision.promote:
            self.client.set_registered_model_alias(ref.name, CHAMPION, ref.version)

    def champion(self, tenant_id: str, family: str) -> ModelRef | None:
        """The version that the alias names, or None where the family has no champion."""
        try:
            version = self.client.get_model_version_by_alias(registered_name(tenant_id, family), CHAMPION)
        except MlflowException as error:
            if error.error_code in (_MISSING, "INVALID_PARAMETER_VALUE"):  # no such model; no such alias
                return None
            raise
        return ModelRef(tenant_id, family, str(version.version), str(version.run_id))

    def version(self, tenant_id: str, family: str, version: str) -> ModelRef:
        """A version by its number. Raises MlflowException where it does not exist."""
        found = self.client.get_model_version(registered_name(tenant_id, family), version)
        return ModelRef(tenant_id, family, str(found.version), str(found.run_id))

    def rollback(self, tenant_id: str, family: str, version: str) -> ModelRef:
        """Move the alias to a version that a person chose. Raises MlflowException where it does not exist."""
        ref = self.version(tenant_id, family, version)
        self.client.set_registered_model_alias(ref.name, CHAMPION, ref.version)
        self.client.set_model_version_tag(ref.name, ref.version, "promotion", "set by hand")
        return ref

    def report(self, ref: ModelRef) -> EvaluationReport:
        """The evaluation that was logged with a version."""
        with TemporaryDirectory() as folder:
            path = self.client.download_artifacts(ref.run_id, REPORT_FILE, folder)
            return EvaluationReport.model_validate_json(Path(path).read_text())

    def past_trainings(self, tenant_id: str, family: str) -> list[PastTraining]:
        """What the newest trainings of a tenant's family did and took on processors like this one.

        Those that ran out of time are left out, since they did less than was planned.
        """
        experiment = self.client.get_experiment_by_name(tenant_id)
        if experiment is None:
            return []
        runs = self.client.search_runs(
            [experiment.experiment_id],
            f"tags.family = '{family}' AND attributes.status = 'FINISHED'",
            max_results=_PAST_TRAININGS,
            order_by=["attributes.start_time DESC"],
        )
        return [found for run in runs if (found := records.past_training(run.data.metrics, run.data.params))]

    def base_models(self, ref: ModelRef) -> dict[str, ModelRef]:
        """The versions that an ensemble serves with, by family; empty for any other model."""
        with TemporaryDirectory() as folder:
            description = Model.load(str(self._download(ref, Path(folder))))
        versions: dict[str, str] = (description.metadata or {}).get("components", {})
        return {family: self.version(ref.tenant_id, family, number) for family, number in versions.items()}

    def download(self, ref: ModelRef, folder: Path) -> Path:
        """Copy a version's model folder to `folder`, which must not exist, and return it."""
        with TemporaryDirectory(dir=_made(folder.parent)) as work:
            (self._download(ref, Path(work)) / _MODEL_FOLDER).rename(folder)
        return folder

    def forget(self, tenant_id: str) -> None:
        """Delete a tenant's artefacts, registered models and experiment; what is gone already is fine."""
        for model in self.client.search_registered_models(f"name LIKE '{registered_name(tenant_id, '%')}'"):
            self.client.delete_registered_model(model.name)
        experiment = self.client.get_experiment_by_name(tenant_id)
        if experiment is not None and experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            get_artifact_repository(experiment.artifact_location, tracking_uri=self.uri).delete_artifacts()  # type: ignore[no-untyped-call]
            self.client.delete_experiment(experiment.experiment_id)

    def _download(self, ref: ModelRef, work: Path) -> Path:
        self._address_process()
        return Path(mlflow.artifacts.download_artifacts(f"models:/{ref.name}/{ref.version}", dst_path=str(work)))

    def _experiment(self, tenant_id: str) -> str:
        found = self.client.get_experiment_by_name(tenant_id)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if self.artifacts is not None:
            location = _made(self.artifacts / tenant_id).absolute().as_uri()
        try:
            return str(self.client.create_experiment(tenant_id, artifact_location=location, tags=_KIND))
        except MlflowException as error:
            found = self.client.get_experiment_by_name(tenant_id)  # another run of the tenant was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return str(found.experiment_id)

    def _log_figures(self, run_id: str, trained: TrainedModel, facts: Mapping[str, str]) -> None:
        values = [
            (name, value, step)
            for name, values in records.metrics(trained).items()
            for step, value in enumerate(values, start=len(values) > 1)
        ]
        self.log_values(run_id, values, records.params(trained), facts)
        self.client.log_text(run_id, trained.report.model_dump_json(indent=2), REPORT_FILE)

    def log_values(
        self,
        run_id: str,
        metrics: Sequence[tuple[str, float, int]],
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to a run. metrics: name, value and step."""
        now = _now_ms()
        found = [Metric(name, value, now, step) for name, value, step in metrics]
        for start in range(0, len(found), 900):  # a request takes 1,000 figures
            self.client.log_batch(run_id, metrics=found[start : start + 900])
        words = [Param(name, str(value)[:500]) for name, value in params.items()]
        self.client.log_batch(run_id, params=words, tags=[RunTag(name, text) for name, text in (tags or {}).items()])

    def _address_process(self) -> None:
        """Logging and downloading a model read the address from the process, so it is set before each."""
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)


class StudyRun:
    """A search for hyper-parameters: one run that shows the best figure so far, with a nested one for every trial."""

    def __init__(self, tracking: Tracking, experiment_id: str, run_id: str, searched: Sequence[str]) -> None:
        """searched: keys of the configuration by dotted path; a trial keeps these, and the sweep the winner's all."""
        self.tracking, self.experiment_id, self.run_id = tracking, experiment_id, run_id
        self.searched = frozenset(searched)
        self.trials: dict[int, str] = {}  # run by number
        self.best = -math.inf

    def log(self, tried: TrialResult) -> None:
        """Keep a configuration that was tried. Its run lasts as long as the trial did."""
        client, key, now = self.tracking.client, records.metric_name(METRIC), _now_ms()
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, "state": tried.state, "reason": tried.reason}
        name, began = f"trial {tried.number}", now - int(1_000 * tried.seconds)
        run = client.create_run(self.experiment_id, start_time=began, run_name=name, tags=tags).info.run_id
        self.trials[tried.number] = run
        metrics = [(f"{key}_on_the_way", figure, step) for step, figure in enumerate(tried.curve, start=1)]
        metrics.append(("seconds", tried.seconds, 0))
        if tried.value is not None:
            metrics.append((key, tried.value, 0))
        values = {} if tried.config is None else records.dotted(tried.config.model_dump(mode="json"))
        self.tracking.log_values(run, metrics, {name: values[name] for name in values if name in self.searched})
        client.set_terminated(run, _ENDED[tried.state], now)
        if tried.value is not None:
            self.best = max(self.best, tried.value)
            client.log_metric(self.run_id, key, self.best, step=tried.number)

    def found(self, tuned: StudyResult, text: str) -> None:
        """Keep the winner. text: its file, which becomes the run's description."""
        self.tracking.client.set_tag(self.trials[tuned.best], "winner", "true")
        tags = {"winner": f"trial {tuned.best}", MLFLOW_RUN_NOTE: f"```yaml\n{text}```"}
        gain = tuned.gain
        gained = (
            [] if gain is None else [("gain", gain.mean, 0), ("gain_low", gain.low, 0), ("gain_high", gain.high, 0)]
        )
        figures = [(name, value, step) for name, value, step in gained if value is not None]
        self.tracking.log_values(self.run_id, figures, records.dotted(tuned.config.model_dump(mode="json")), tags)


_ENDED = {COMPLETE: "FINISHED", PRUNED: "KILLED", FAILED: "FAILED"}
"""What the server says of a trial, which shows in every list of runs."""


def _now_ms() -> int:
    return int(pd.Timestamp.now("UTC").timestamp() * 1000)


def _save_flavor(path: str, mlflow_model: Model, folder: Path) -> None:
    """Lay out a logged model: the model folder beside a description that `mlflow.pyfunc.load_model` understands."""
    shutil.copytree(folder, Path(path) / _MODEL_FOLDER)
    mlflow_model.signature = SIGNATURE
    mlflow_model.add_flavor("recommendai", data=_MODEL_FOLDER)
    mlflow.pyfunc.add_to_model(mlflow_model, loader_module=__name__, data=_MODEL_FOLDER)
    mlflow_model.save(str(Path(path) / "MLmodel"))


def _load_pyfunc(path: str) -> "ScoresHistories":
    """Called by MLflow with the model folder inside the logged model."""
    metadata = Model.load(str(Path(path).parent)).metadata or {}
    tracking = Tracking(mlflow.get_registry_uri())
    base_models: dict[str, Recommender] = {}
    with TemporaryDirectory() as work:
        for family, version in metadata.get("components", {}).items():
            ref = tracking.version(metadata["tenant"], family, version)
            base_models[family] = load_model(tracking.download(ref, Path(work) / family))
        return ScoresHistories(load_model(Path(path), base_models))


class ScoresHistories:
    """A model behind MLflow's interface: histories as rows of a frame in, raw scores out."""

    def __init__(self, model: Recommender) -> None:
        self.model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> npt.NDArray[np.float32]:
        """Raw scores, float32 [n_rows, n_items]. model_input: the columns of SIGNATURE, one history a row."""
        lengths = model_input["items"].map(len).to_numpy()
        types = [TYPE_CODES[name] for row in model_input["types"] for name in row]
        histories = Histories(
            items=_flat(model_input["items"], np.int32),
            types=np.array(types, dtype=np.int8),
            weights=_flat(model_input["weights"], np.float32),
            timestamps=_flat(model_input["timestamps"], np.int64),
            offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        )
        return self.model.score(histories)


def _flat(column: "pd.Series[Any]", dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.array([value for row in column for value in row], dtype=dtype)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
