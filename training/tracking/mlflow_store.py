"""Trainings and the model registry, in MLflow.

A tenant has one experiment, named after it, and one registered model per family, `<tenant>.<family>`. The alias
`champion` names the version that serves (`training.tracking.aliases`). Artefacts are the plain files of a model folder:
nothing is pickled, and no example of a real user's history is logged.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from training.evaluation.promotion import PromotionVerdict
from training.evaluation.promotion_report import PromotionReport
from training.evaluation.report import EvaluationReport
from training.forecast import PastTraining
from training.models.contract import Recommender
from training.models.registry import load_model
from training.tracking import payload, stored_names
from training.tracking.aliases import CHAMPION, MISSING, Aliases
from training.tracking.documentation import document, source_tags
from training.tracking.experiments import created_folder
from training.tracking.flavor import FLAVOR, MODEL_FOLDER, HistoryScorer, write_logged_model
from training.tracking.searches import tuning_experiment
from training.train import TrainedModel

REPORT_FILE = "evaluation.json"
PROMOTION_FOLDER = "promotion"
"""Folder of a run's artefacts with the report on the promotion: `promotion.json`, `promotion.md`, `differences.png`."""
_PROMOTED_BY_HAND, _ROLLED_BACK = "promoted by hand", "rolled back to"
"""Verdicts of persons, beside those of the rule."""
_PAST_TRAININGS = 10
"""The newest ones that correct a forecast."""


class UnknownVersionError(LookupError):
    """The registry has no such version."""


class NoPreviousVersionError(LookupError):
    """A family has no version that it could go back to."""


class UnreadableReportError(Exception):
    """The evaluation report of a version is missing or damaged."""


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


@dataclass(frozen=True)
class ManualChoice:
    """A person made a version the champion."""

    by: str
    reason: str
    rolled_back: bool


def registered_name(tenant_id: str, family: str) -> str:
    """The name of a family's registered model."""
    return f"{tenant_id}.{family}"


class Tracking(Aliases):
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

    def record_promotion(self, ref: ModelRef, report: PromotionReport) -> None:
        """Log the report with the version's run, tag both with the verdict, and move the aliases accordingly."""
        for name, text in (("promotion.json", report.model_dump_json(indent=2)), ("promotion.md", report.as_text())):
            self.client.log_text(ref.run_id, text, f"{PROMOTION_FOLDER}/{name}")
        if (plot := report.plot()) is not None:
            self.client.log_figure(ref.run_id, plot, f"{PROMOTION_FOLDER}/differences.png")
        self._tag_version_and_run(
            ref,
            {
                stored_names.PROMOTION_REASON: report.reason,
                stored_names.PROMOTION_VERDICT: report.verdict.value,
                stored_names.PROMOTION_BLOCKED: str(report.verdict is PromotionVerdict.BLOCKED).lower(),
                stored_names.PROMOTED: str(report.promoted).lower(),
            },
        )
        if report.promoted:
            self.make_champion(ref.name, ref.version)
        else:
            self.make_challenger(ref.name, ref.version)

    def promotion_report(self, ref: ModelRef) -> PromotionReport:
        """The report that was logged with a version. Raises UnreadableReportError where it cannot be read."""
        return PromotionReport.model_validate(self._logged_json(ref, f"{PROMOTION_FOLDER}/promotion.json"))

    def promote_by_hand(self, tenant_id: str, family: str, version: str, *, by: str, reason: str) -> ModelRef:
        """Move the alias to a version that a person chose, past the promotion rule; who and why are kept as tags.

        Raises UnknownVersionError where the version does not exist.
        """
        ref = self.version(tenant_id, family, version)
        self._tag_version_and_run(
            ref,
            {
                stored_names.PROMOTION_REASON: f"promoted by {by}: {reason}",
                stored_names.PROMOTION_VERDICT: _PROMOTED_BY_HAND,
                stored_names.PROMOTED: "true",
                stored_names.OVERRIDDEN_BY: by,
                stored_names.OVERRIDE_REASON: reason,
                stored_names.OVERRIDDEN_AT: pd.Timestamp.now("UTC").isoformat(timespec="seconds"),
            },
        )
        self.make_champion(ref.name, ref.version, by_hand=True)
        return ref

    def roll_back(self, tenant_id: str, family: str, *, by: str, reason: str) -> ModelRef:
        """Make the previous version the champion, and hold it until a person lifts that. Who and why are kept as tags.

        Raises NoPreviousVersionError where there is no previous version.
        """
        name = registered_name(tenant_id, family)
        version = None if self.model_aliases(name) is None else self.go_back(name)
        if version is None:
            raise NoPreviousVersionError(f"{name} has no version with the alias `previous` to go back to")
        hold = self.hold(name, by, reason)
        ref = self.version(tenant_id, family, version)
        self._tag_version_and_run(
            ref,
            {
                stored_names.PROMOTION_REASON: f"rolled back by {by}: {reason}",
                stored_names.PROMOTION_VERDICT: _ROLLED_BACK,
                stored_names.PROMOTED: "true",
                stored_names.OVERRIDDEN_BY: by,
                stored_names.OVERRIDE_REASON: reason,
                stored_names.OVERRIDDEN_AT: hold.since,
            },
        )
        return ref

    def choice_of(self, ref: ModelRef) -> ManualChoice | None:
        """Who chose the champion by hand, and why; None where the rule promoted it."""
        tags = self.client.get_model_version(ref.name, ref.version).tags
        verdict = tags.get(stored_names.PROMOTION_VERDICT)
        if verdict in (_PROMOTED_BY_HAND, _ROLLED_BACK):
            by, reason = tags[stored_names.OVERRIDDEN_BY], tags[stored_names.OVERRIDE_REASON]
            return ManualChoice(by, reason, rolled_back=verdict == _ROLLED_BACK)
        found = self.model_aliases(ref.name)
        if found is not None and found.hold is not None and found.champion == ref.version:
            return ManualChoice(found.hold.by, found.hold.reason, rolled_back=False)
        return None

    def champion(self, tenant_id: str, family: str) -> ModelRef | None:
        """The version that the alias names, or None where there is no alias; see `last_promoted`."""
        try:
            version = self.client.get_model_version_by_alias(registered_name(tenant_id, family), CHAMPION)
        except MlflowException as error:
            if error.error_code in MISSING:
                return None
            raise
        return ModelRef(tenant_id, family, str(version.version), str(version.run_id))

    def last_promoted(self, tenant_id: str, family: str) -> str | None:
        """The version that was promoted last, as text, or None where none ever was.

        The tags of runs hold this even after the alias or the version was deleted. So a family that lost its champion
        is distinguished from one that never had any.
        """
        experiment = self.client.get_experiment_by_name(tenant_id)
        if experiment is None or experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            return None
        found = self.client.search_runs(
            [experiment.experiment_id],
            f"tags.family = '{family}' AND tags.{stored_names.PROMOTED} = 'true'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if not found:
            return None
        run_id = found[0].info.run_id
        versions = self.client.search_model_versions(f"run_id = '{run_id}'")
        return f"version {versions[0].version}" if versions else f"a deleted version of run {run_id}"

    def version(self, tenant_id: str, family: str, version: str) -> ModelRef:
        """A version by its number. Raises UnknownVersionError where it does not exist."""
        name = registered_name(tenant_id, family)
        try:
            found = self.client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code in MISSING:
                raise UnknownVersionError(f"{name} has no version {version!r} in the registry") from error
            raise
        return ModelRef(tenant_id, family, str(found.version), str(found.run_id))

    def tags(self, ref: ModelRef) -> dict[str, str]:
        """The tags of the run that trained a version, under today's names."""
        return stored_names.current_names(self.client.get_run(ref.run_id).data.tags, stored_names.RENAMED_TAGS)

    def report(self, ref: ModelRef) -> EvaluationReport:
        """The evaluation that was logged with a version. Raises UnreadableReportError where it cannot be read."""
        try:
            return EvaluationReport.model_validate({"family": ref.family, **self._logged_json(ref, REPORT_FILE)})
        except (ValueError, TypeError) as error:
            raise _unreadable(REPORT_FILE, error) from error

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
        with TemporaryDirectory() as folder:
            metadata = _metadata(self._download(ref, Path(folder)))
        versions: dict[str, str] = metadata.get(stored_names.BASE_MODELS, {})
        return {family: self.version(ref.tenant_id, family, number) for family, number in versions.items()}

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

    def _logged_json(self, ref: ModelRef, name: str) -> Any:
        """A JSON artefact of a version's run. Raises UnreadableReportError where it cannot be read."""
        try:
            with TemporaryDirectory() as folder:
                return json.loads(Path(self.client.download_artifacts(ref.run_id, name, folder)).read_text())
        except (MlflowException, OSError, ValueError) as error:
            raise _unreadable(name, error) from error

    def _tag_version_and_run(self, ref: ModelRef, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self.client.set_model_version_tag(ref.name, ref.version, name, value)
            self.client.set_tag(ref.run_id, name, value)

    def _download(self, ref: ModelRef, folder: Path) -> Path:
        """The whole logged model of a version, downloaded into `folder`."""
        self.use_in_process()
        return Path(mlflow.artifacts.download_artifacts(f"models:/{ref.name}/{ref.version}", dst_path=str(folder)))


def _unreadable(name: str, error: Exception) -> UnreadableReportError:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return UnreadableReportError(f"its report {name} cannot be read: {first}")


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
