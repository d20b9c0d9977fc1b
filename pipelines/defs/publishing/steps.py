"""What the publishing asset does, without Dagster: publish the champions as a release."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.plugins import plugged_in
from feature_store.analytics_sinks import ReleasedModel, record_release
from feature_store.lake import tenant_folder
from pipelines.defs.training.steps import TrainingRun, servable_champion
from serving.contracts.messages import ALGORITHMS
from serving.release import ReleaseMember, publish
from training.tracking.mlflow_store import ModelRef


@dataclass(frozen=True)
class Published:
    """A release and what it was made of."""

    release: str
    champions: Mapping[str, ModelRef]  # by family
    families_without_champion: list[str]  # no champion, or one with other item positions than the snapshot


def publish_champions(run: TrainingRun) -> Published:
    """Release the tenant's champions of all families that serve, and store their AUC at training.

    Raises LookupError where no family has a champion; the earlier release then goes on serving.
    """
    served: tuple[str, ...] = (*ALGORITHMS, *plugged_in())
    found = {family: servable_champion(run, family) for family in served}
    champions = {family: ref for family, ref in found.items() if ref is not None}
    if not champions:
        raise LookupError(f"no family of {run.tenant} has a champion: the asset `champions` has the reasons")
    work = tenant_folder(run.installation.paths.models, run.tenant)
    work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=work, prefix=".release-") as folder:
        release = publish(
            run.tenant,
            {family: _member(run, ref, Path(folder)) for family, ref in champions.items()},
            run.snapshot / "items.parquet",
            run.manifest.catalogue_version,
            home=run.installation.paths.bentoml,
            notes={"snapshot": run.manifest.snapshot_id},
        )
    record_release(
        run.installation.database_url(),
        run.tenant,
        release,
        [
            ReleasedModel(family, ref.version, run.tracking.report(ref).metric("auc"))
            for family, ref in champions.items()
        ],
    )
    return Published(release, champions, [family for family in served if family not in champions])


def delete_earlier_work(run: TrainingRun) -> None:
    """Delete the work folders of trainings on earlier snapshots."""
    for folder in tenant_folder(run.installation.paths.models, run.tenant).iterdir():
        if folder.name != run.manifest.snapshot_id:
            shutil.rmtree(folder)


def _member(run: TrainingRun, ref: ModelRef, work: Path) -> ReleaseMember:
    folder = work / f"{ref.family}-{ref.version}"
    if not folder.exists():
        run.tracking.download(ref, folder)
    base_models = {family: _member(run, part, work) for family, part in run.tracking.base_models(ref).items()}
    return ReleaseMember(ref.version, folder, base_models)
