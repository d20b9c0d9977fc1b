"""Trainings and the model registry, in MLflow.

A tenant has one experiment, named after it, and one registered model per family, `<tenant>.<family>`. The alias
`champion` names the version that serves (`training.tracking.aliases`). Artefacts are the plain files of a model folder:
nothing is pickled, and no example of a real user's history is logged.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import mlflow
from mlflow.entities import LifecycleStage
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from training.forecast import PastTraining
from training.models.contract import Recommender
from training.models.registry import load_model
from training.tracking import payload, stored_names
from training.tracking.documentation import document, source_tags
from training.tracking.experiments import created_folder
from training.tracking.flavor import FLAVOR, MODEL_FOLDER, HistoryScorer, write_logged_model
from training.tracking.promotions import Promotions
from training.tracking.searches import tuning_experiment
from training.tracking.versions import REPORT_FILE, ModelRef, registered_name
from training.train import TrainedModel

_PAST_TRAININGS = 10
"""The newest ones that correct a forecast."""


class Tracking(Promotions):
    """The trainings and the registered models of all tenants, on one MLflow server or store."""

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
            tags: further tags to find the run by, such as the pipeline's run id.
        """
        report = trained.report
        run_tags = {
            "tenant": tenant_id,
            "family": trained.family,
            "snapshot_id": report.snapshot_id,
            "split_hash": report.split_hash,
            "protocol": report.protocol.partition(":")[0],  # the card and the report have all of it
            "seed": str(trained.seed),
            **source_tags(trained.family),
            **(tags or {}),
        }
        created = self.client.create_run(self.experiment_id(tenant_id), run_name=trained.family)
        self.use_in_process()
        # The run is the active one while it is filled: MLflow gives a logged model the active run's experiment, and
        # it ends the run as finished or as failed.
        with mlflow.start_run(created.info.run_id) as run, TemporaryDirectory() as folder:
            self._log_training(run.info.run_id, trained, run_tags)
            trained.save_served(Path(folder))
            info = Model.log(
                artifact_path=None,
                name=trained.family,
                flavor=SimpleNamespace(save_model=write_logged_model),
                flavor_name=FLAVOR,
                folder=Path(folder),
                registered_model_name=registered_name(tenant_id, trained.family),
                await_registration_for=60,
                metadata={
                    "tenant": tenant_id,
                    "family": trained.family,
                    stored_names.BASE_MODELS: dict(base_models or {}),
                },
                tags=run_tags,
            )
            ref = ModelRef(tenant_id, trained.family, str(info.registered_model_version), created.info.run_id)
            document(self, ref, str(info.model_id), trained, base_models or {})
        for name, value in payload.summary(report).items():
            self.client.set_model_version_tag(ref.name, ref.version, name, value)
        return ref

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
        return [found for run in runs if (found := payload.past_training(run.data.metrics, run.data.params))]

    def base_models(self, ref: ModelRef) -> dict[str, ModelRef]:
        """The versions that an ensemble serves with, by family; empty for any other model."""
        return {
            family: self.version(ref.tenant_id, family, number)
            for family, number in self.base_model_versions(ref).items()
        }

    def base_model_versions(self, ref: ModelRef) -> dict[str, str]:
        """The numbers of the versions that an ensemble serves with, by family, whether or not they exist."""
        self.use_in_process()
        with TemporaryDirectory() as folder:
            path = mlflow.artifacts.download_artifacts(f"models:/{ref.name}/{ref.version}/MLmodel", dst_path=folder)
            versions: dict[str, str] = _metadata(Path(path).parent).get(stored_names.BASE_MODELS, {})
        return versions

    def download(self, ref: ModelRef, folder: Path) -> Path:
        """Copy a version's model folder to `folder`, which must not exist, and return it."""
        with TemporaryDirectory(dir=created_folder(folder.parent)) as work:
            (self._download(ref, Path(work)) / MODEL_FOLDER).rename(folder)
        return folder

    def delete_experiment(self, tenant_id: str) -> None:
        """Delete a tenant's artefacts, registered models and experiments. It can be called again after a failure."""
        for model in self.client.search_registered_models(f"name LIKE '{registered_name(tenant_id, '%')}'"):
            self.client.delete_registered_model(model.name)
        for name in (tenant_id, tuning_experiment(tenant_id)):
            self._delete_experiment(name)

    def _delete_experiment(self, name: str) -> None:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None and experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            get_artifact_repository(experiment.artifact_location, tracking_uri=self.uri).delete_artifacts()  # type: ignore[no-untyped-call]
            self.client.delete_experiment(experiment.experiment_id)

    def _log_training(self, run_id: str, trained: TrainedModel, tags: Mapping[str, str]) -> None:
        metrics = [
            (name, value, step)
            for name, values in payload.metrics(trained).items()
            for step, value in enumerate(values, start=len(values) > 1)
        ]
        self.log_values(run_id, metrics, payload.params(trained), tags)
        self.client.log_text(run_id, trained.report.model_dump_json(indent=2), REPORT_FILE)

    def _download(self, ref: ModelRef, folder: Path) -> Path:
        """The whole logged model of a version, downloaded into `folder`."""
        self.use_in_process()
        return Path(mlflow.artifacts.download_artifacts(f"models:/{ref.name}/{ref.version}", dst_path=str(folder)))


def load_logged_model(path: str) -> HistoryScorer:
    """The model of a logged model, with the registered base models that it serves with.

    path: the model folder inside the logged model, as MLflow passes it to `training.tracking._load_pyfunc`.
    """
    metadata = _metadata(Path(path).parent)
    tracking = Tracking(mlflow.get_registry_uri())
    base_models: dict[str, Recommender] = {}
    with TemporaryDirectory() as work:
        for family, version in metadata.get(stored_names.BASE_MODELS, {}).items():
            ref = tracking.version(metadata["tenant"], family, version)
            base_models[family] = load_model(tracking.download(ref, Path(work) / family))
        return HistoryScorer(load_model(Path(path), base_models))


def _metadata(logged_model: Path) -> dict[str, Any]:
    """The metadata of a logged model, under today's names."""
    return stored_names.current_names(Model.load(str(logged_model)).metadata or {}, stored_names.RENAMED_METADATA)
