"""What the publishing asset and job do, without Dagster: publish the champions as a release."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.storage import open_storage
from feature_store.analytics_sinks import ReleasedModel, record_release
from feature_store.lake import tenant_folder
from pipelines.defs.training.champions import servable
from pipelines.defs.training.families import released_families
from pipelines.defs.training.steps import TrainingRun
from pipelines.io_managers import value_key, values_folder
from pipelines.resources import Installation
from serving.contracts.releases import ITEMS_FILE, ReleaseManifest
from serving.release import ReleaseMember, newest_manifest, publish, release_folder
from training.tracking.aliases import IN_MLFLOW
from training.tracking.versions import ModelRef, UnknownVersionError, registered_name

_SNAPSHOT_NOTE, _POSITIONS_NOTE = "snapshot", "positions"
"""Notes of a release: the snapshot whose item table it has, and the id of the order of its items."""


@dataclass(frozen=True)
class Published:
    """A release and what it was made of."""

    release: str | None  # None: no family could be published; an earlier release or the fallback serves on
    champions: Mapping[str, ModelRef]  # by family
    families_without_champion: list[str]
    serving: str | None  # the release that serves from now on; None: the fallback answers
    not_servable: Mapping[
        str, str
    ]  # families whose champion cannot be served with the snapshot's items, and its version


def publish_champions(run: TrainingRun, *, chosen_by_a_person: bool = False) -> Published:
    """Release the tenant's champions of all families that serve, and store their AUC at training.

    A champion with other item positions than the snapshot cannot be served with its items: such a family keeps the
    version that serves, where there is one. Without any family nothing is published.

    chosen_by_a_person: publish only champions that a person chose beside the versions that serve. A training that goes
    on publishes what it promotes itself, or does not publish it.
    """
    served = released_families()
    home = run.installation.paths.bentoml
    with open_storage(tenant_folder(run.installation.paths.features, run.tenant)).lock():
        before = newest_manifest(home, run.tenant)
        serving = None if before is None else before.release
        members = {family: _to_publish(run, family, before, chosen_by_a_person) for family in served}
        champions = {family: one.version for family, one in members.items() if one.version is not None}
        without = [family for family in served if family not in champions]
        not_servable = {family: one.not_servable for family, one in members.items() if one.not_servable is not None}
        if not champions or (chosen_by_a_person and _versions(champions) == _released_versions(before)):
            return Published(None, {}, without, serving, not_servable)
        items, catalogue_version = _item_table(run, before)
        work = tenant_folder(run.installation.paths.models, run.tenant)
        work.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=work, prefix=".release-") as folder:
            release = publish(
                run.tenant,
                {family: _member(run, ref, Path(folder)) for family, ref in champions.items()},
                items,
                catalogue_version,
                home=home,
                notes={_SNAPSHOT_NOTE: run.manifest.snapshot_id, _POSITIONS_NOTE: run.manifest.positions_id},
            )
        record_release(
            run.installation.database_url(),
            run.tenant,
            release,
            [_released(run, ref) for ref in champions.values()],
        )
    return Published(release, champions, without, release, not_servable)


def publish_chosen(installation: Installation, tenant: str) -> Published:
    """Publish the champions as they are now, without a training, because a person chose some of them.

    Where a chosen version has other item positions than today's, its family is held with that version's configuration,
    which the next training fits again. Raises FileNotFoundError where the tenant was never trained here.
    """
    values = open_storage(values_folder(installation.paths))
    run = TrainingRun.on(installation, json.loads(values.read_text(value_key(["feature_snapshot"], tenant))))
    published = publish_champions(run, chosen_by_a_person=True)
    for family, version in published.not_servable.items():
        ref = run.tracking.version(tenant, family, version)
        if (choice := run.tracking.choice_of(ref)) is not None:
            run.tracking.hold(ref.name, choice.by, choice.reason, refit_of=version)
    return published


def delete_earlier_work(run: TrainingRun) -> None:
    """Delete the work folders of trainings on earlier snapshots."""
    for folder in tenant_folder(run.installation.paths.models, run.tenant).iterdir():
        if folder.name != run.manifest.snapshot_id:
            shutil.rmtree(folder)


@dataclass(frozen=True)
class _Member:
    version: ModelRef | None  # what the release gets
    not_servable: str | None = None  # the champion, where that is another


def _to_publish(run: TrainingRun, family: str, serving: ReleaseManifest | None, only_chosen: bool) -> _Member:
    """only_chosen: whether a champion that the promotion rule chose waits for its training."""
    aliases = run.tracking.model_aliases(registered_name(run.tenant, family))
    if aliases is None or aliases.champion is None:
        return _Member(None)
    if only_chosen and not aliases.chosen_by_a_person:
        return _Member(_serving_version(run, family, serving))
    champion = run.tracking.version(run.tenant, family, aliases.champion)
    if servable(run, champion):
        return _Member(champion)
    return _Member(_serving_version(run, family, serving), champion.version)


def _versions(champions: Mapping[str, ModelRef]) -> dict[str, str]:
    return {family: ref.version for family, ref in champions.items()}


def _released_versions(serving: ReleaseManifest | None) -> dict[str, str]:
    return {} if serving is None else {family: model.version for family, model in serving.families.items()}


def _serving_version(run: TrainingRun, family: str, serving: ReleaseManifest | None) -> ModelRef | None:
    """The version of the family in the newest release, if it is still in the registry and can be served."""
    if serving is None or family not in serving.families:
        return None
    try:
        ref = run.tracking.version(run.tenant, family, serving.families[family].version)
    except UnknownVersionError:
        return None
    return ref if servable(run, ref) else None


def _item_table(run: TrainingRun, serving: ReleaseManifest | None) -> tuple[Path, int]:
    """The item table to publish with and its catalogue version: the snapshot's, or that of the release that serves.

    An erasure deletes the tenant's snapshots, since they hold what the user did. The item table of a release names no
    user, and lists the items in the same order where it notes the same positions. Raises FileNotFoundError otherwise.
    """
    items = run.snapshot / "items.parquet"
    if items.exists():
        return items, run.manifest.catalogue_version
    if serving is not None and serving.notes.get(_POSITIONS_NOTE) == run.manifest.positions_id:
        folder = release_folder(run.installation.paths.bentoml, run.tenant, serving.release)
        return folder / ITEMS_FILE, serving.catalogue_version
    raise FileNotFoundError(f"{items} was deleted, and no release has its items: the next training publishes")


def _released(run: TrainingRun, ref: ModelRef) -> ReleasedModel:
    """What the audit trail and the analytics note of a version in a release."""
    auc = run.tracking.report(ref).metric("auc")
    choice = run.tracking.choice_of(ref)
    if choice is None:
        return ReleasedModel(ref.family, ref.version, auc)
    actor = "pipeline" if choice.by == IN_MLFLOW else "command-line"
    return ReleasedModel(ref.family, ref.version, auc, actor, choice.by, choice.reason, choice.rolled_back)


def _member(run: TrainingRun, ref: ModelRef, work: Path) -> ReleaseMember:
    folder = work / f"{ref.family}-{ref.version}"
    if not folder.exists():
        run.tracking.download(ref, folder)
    base_models = {family: _member(run, part, work) for family, part in run.tracking.base_models(ref).items()}
    return ReleaseMember(ref.version, folder, base_models)
