"""What the training assets do, without Dagster: train, register and evaluate families."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from configs.tenant_pipeline import TenantPipeline
from feature_store.interaction_types import SeenPolicy, seen_policy
from feature_store.lake import tenant_folder
from feature_store.snapshot_files import SnapshotManifest, snapshot_folder
from pipelines.defs.training.families import base_models_of
from pipelines.resources import Installation
from pipelines.tenant_settings import in_force, tenant_settings
from training.data.dataset import Dataset, load_snapshot
from training.data.splits import Split, temporal_split
from training.evaluation.promotion import load_policy
from training.evaluation.report import EvaluationReport
from training.evaluation.serving_cost import serving_cost
from training.evaluation.user_values import UserValues
from training.models.contract import ModelConfig, ProcessGroup, RuntimeOptions
from training.tracking.mlflow_store import Tracking
from training.tracking.versions import ModelRef, registered_name
from training.train import TrainedModel, train_family

POSITIONS_TAG = "positions_id"
CATALOGUE_TAG = "catalogue_version"
VALUES_FILE = "user_values.npz"
COST_FILE = "serving_cost.json"
"""Files of a family's work folder that the comparison with the champion reads."""


def tracking_of(installation: Installation) -> Tracking:
    """The installation's MLflow server, or its own store where no server is configured."""
    paths = installation.paths
    paths.mlflow.mkdir(parents=True, exist_ok=True)
    return Tracking(installation.tracking.resolve(paths), paths.mlflow / "artifacts")


@dataclass(frozen=True)
class TrainingRun:
    """The training of one tenant's families on one snapshot."""

    installation: Installation
    manifest: SnapshotManifest
    exclude_seen: SeenPolicy

    @classmethod
    def on(cls, installation: Installation, feature_snapshot: Mapping[str, Any]) -> Self:
        """The run on the snapshot that the asset `feature_snapshot` described."""
        manifest = SnapshotManifest.of(feature_snapshot)
        return cls(installation, manifest, seen_policy(feature_snapshot["exclude_seen"]))

    @property
    def tenant(self) -> str:
        return self.manifest.tenant_id

    @property
    def tracking(self) -> Tracking:
        return tracking_of(self.installation)

    @property
    def settings(self) -> TenantPipeline:
        """What the tenant has set, as of now."""
        return tenant_settings(self.installation, self.tenant)

    @property
    def options(self) -> RuntimeOptions:
        settings = in_force(self.installation, self.settings)
        return RuntimeOptions(
            device=settings.train_device,
            threads=settings.train_threads,
            max_seconds=settings.train_seconds,
            max_memory_mb=settings.train_memory_mb,
            group=self._group(settings.train_processes),
        )

    def _group(self, processes: int) -> ProcessGroup | None:
        if processes == 1:
            return None
        return ProcessGroup(self.installation.compute().train, processes, self.installation.paths.fits)

    @property
    def snapshot(self) -> Path:
        return snapshot_folder(self.installation.paths.features, self.tenant, self.manifest.snapshot_id)

    def data(self) -> tuple[Dataset, Split]:
        """The snapshot's data set, and the temporal split that every family is evaluated on."""
        history, pipeline = self.installation.history, self.installation.pipeline
        return _data(self.snapshot, history.max_events, self.exclude_seen, pipeline.evaluated_users)

    def folder(self, family: str) -> Path:
        """The work folder in which a run keeps a trained family for its later steps."""
        return tenant_folder(self.installation.paths.models, self.tenant) / self.manifest.snapshot_id / family

    def load(self, family: str) -> TrainedModel:
        """The model that an earlier step trained. Raises FileNotFoundError where no step has."""
        if not self.folder(family).exists():
            raise FileNotFoundError(
                f"no {family} was trained on snapshot {self.manifest.snapshot_id}: another run has built this snapshot "
                "since, so this one cannot go on; start a new run"
            )
        return TrainedModel.load(self.folder(family), {name: self.load(name) for name in base_models_of(family)})


@lru_cache(maxsize=1)  # the steps of a run share one snapshot, whose content never changes
def _data(snapshot: Path, max_events: int, exclude_seen: SeenPolicy, max_users: int) -> tuple[Dataset, Split]:
    dataset = load_snapshot(snapshot, max_events).served_by(exclude_seen)
    return dataset, temporal_split(dataset, exclude_seen, max_users=max_users)


def train(
    run: TrainingRun,
    family: str,
    base_model_versions: Mapping[str, str],
    tags: Mapping[str, str],
    config: ModelConfig | None = None,
) -> tuple[TrainedModel, ModelRef]:
    """Train a family, keep it for the next steps, log it and register it as a new version.

    Args:
        run: the tenant and its snapshot.
        family: the family.
        base_model_versions: registered versions of `base_models_of(family)`, trained on the same snapshot.
        tags: of the run in MLflow.
        config: hyper-parameters; default: the family's for the data.
    """
    dataset, split = run.data()
    trained = train_family(
        family,
        dataset,
        options=run.options,
        config=_held_config(run, family) or config,
        base_models={name: run.load(name) for name in base_model_versions},
        exclude_seen=run.exclude_seen,
        split=split,
        past=run.tracking.past_trainings(run.tenant, family),
    )
    folder = run.folder(family)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    trained.save(folder)
    UserValues.of(split, trained.rankings).save(folder / VALUES_FILE)
    served = [run.folder(name) / "model" for name in (family, *base_model_versions)]
    if (cost := serving_cost(trained.model, split.test, served)) is not None:
        (folder / COST_FILE).write_text(cost.model_dump_json())
    facts = {POSITIONS_TAG: run.manifest.positions_id, CATALOGUE_TAG: str(run.manifest.catalogue_version)}
    return trained, run.tracking.log(trained, run.tenant, base_model_versions, {**facts, **tags})


def _held_config(run: TrainingRun, family: str) -> ModelConfig | None:
    """The configuration that a hold asks to fit again, since its version cannot be served; None without such a hold.

    Raises UnreadableReportError or ValueError where that configuration cannot be read.
    """
    found = run.tracking.model_aliases(registered_name(run.tenant, family))
    if found is None or found.hold is None or found.hold.refit_of is None:
        return None
    config = run.tracking.report(run.tracking.version(run.tenant, family, found.hold.refit_of)).config
    if not isinstance(config, ModelConfig):
        raise ValueError(
            f"version {found.hold.refit_of} of {family}, which {found.hold.by} went back to, has no configuration that "
            f"can be fitted: `python -m pipelines lift --tenant {run.tenant} --family {family}` ends that"
        )
    return config


def report_of(run: TrainingRun, family: str) -> EvaluationReport:
    """The report of a family that this run trained."""
    return run.load(family).report


def figures(report: EvaluationReport) -> dict[str, Any]:
    """The main metrics of a report, on the user segment by which promotion decides."""
    policy = load_policy()
    segment = next((each for each in policy.segments if report.n_users(each) >= policy.min_users), "all")
    result = next((each for each in report.results if each.segment == segment), None)
    metrics = {} if result is None else result.metrics
    return {
        "segment": segment,
        "users": report.n_users(segment),
        **{name: metrics[name].mean for name in ("ndcg@10", "recall@10", "auc", "coverage@10") if name in metrics},
    }
