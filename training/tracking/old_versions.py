"""Deletes versions of registered models that are no longer needed, with their training runs and artefacts.

MLflow deletes a version at once. Runs and logged models it only marks as deleted, and keeps their artefacts. So the
artefacts are deleted here, and `collect_garbage` removes the marked rows.
"""

import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from training.tracking.aliases import ModelAliases
from training.tracking.mlflow_store import Tracking
from training.tracking.versions import registered_name

EXPIRED = "expired"
"""Tag of a run whose version is deleted as too old. By it, the run is found again after a process was killed."""
_PAGE = 200


@dataclass(frozen=True)
class KeptVersions:
    """How many versions of each family are kept beside those that have an alias or are in a release."""

    newest: int
    rollbacks: int
    """The number of rollbacks in a row, from the present champion on, whose versions are kept."""


def delete_old_versions(
    tracking: Tracking,
    tenant_id: str,
    kept: KeptVersions,
    released: Mapping[str, Collection[str]],
    ensembles: Collection[str],
    limit: int,
) -> tuple[int, bool]:
    """Delete up to `limit` of a tenant's old versions. Returns how many, and whether more are left.

    These are kept: the newest; those with an alias; those that rollbacks reach; the one whose configuration a hold asks
    to fit again; the one promoted last; those in a release; the base models of ensembles that are kept. No training of
    the tenant may run meanwhile, because a new ensemble names base models.

    Args:
        tracking: the server or store.
        tenant_id: the tenant.
        kept: how many are kept.
        released: versions in the tenant's releases, by family.
        ensembles: families whose versions serve with versions of others.
        limit: of deletions.
    """
    found = {model.name: model for model in _models(tracking, tenant_id)}
    versions = {name: _versions(tracking, f"name = '{name}'") for name in found}
    needed = {name: _needed(tracking, tenant_id, found[name], versions[name], kept, released) for name in found}
    for family in ensembles:
        for version in sorted(needed.get(registered_name(tenant_id, family), ())):
            ref = tracking.version(tenant_id, family, version)
            for other, number in tracking.base_model_versions(ref).items():
                needed.setdefault(registered_name(tenant_id, other), set()).add(number)
    old = chain.from_iterable(
        (each for each in listed if str(each.version) not in needed[name]) for name, listed in versions.items()
    )
    deleted = 0
    for each in islice(old, limit):
        _delete_version(tracking, each)
        deleted += 1
    _finish_deletions(tracking, tenant_id)
    return deleted, next(old, None) is not None


def collect_garbage(tracking: Tracking, store: str, days: int, seconds: float) -> bool:
    """Remove what has been marked as deleted for so many days from MLflow's database, as `mlflow gc` does.

    Until then a person can restore it. It includes what people deleted in MLflow.

    Args:
        tracking: the server or store, through which remaining artefacts are deleted.
        store: the address of the database.
        days: that have passed since it was marked.
        seconds: after which the command is ended; the next call continues.

    Returns whether it came to its end. Raises subprocess.CalledProcessError where MLflow reports an error.
    """
    # The command takes its server from the whole process, so it gets a process of its own.
    command = [sys.executable, "-m", "mlflow", "gc", "--older-than", f"{days}d", "--tracking-uri", tracking.uri]
    command += ["--backend-store-uri", store]
    try:
        subprocess.run(command, check=True, timeout=seconds, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return False
    return True


def _models(tracking: Tracking, tenant_id: str) -> list[ModelAliases]:
    found, token = [], None
    pattern = registered_name(tenant_id, "%")
    while True:
        page = tracking.client.search_registered_models(f"name LIKE '{pattern}'", _PAGE, page_token=token)
        # `_` of a tenant's id stands for any character in a pattern.
        found += [ModelAliases.of(model) for model in page if model.name.rpartition(".")[0] == tenant_id]
        token = page.token
        if not token:
            return found


def _versions(tracking: Tracking, condition: str) -> list[ModelVersion]:
    found: list[ModelVersion] = []
    token = None
    while True:
        page = tracking.client.search_model_versions(condition, _PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def _needed(
    tracking: Tracking,
    tenant_id: str,
    model: ModelAliases,
    versions: list[ModelVersion],
    kept: KeptVersions,
    released: Mapping[str, Collection[str]],
) -> set[str]:
    family = model.name.rpartition(".")[2]
    needed = {str(version.version) for version in versions[-kept.newest :]}
    needed |= {*model.aliases.values(), *released.get(family, ())}
    if model.hold is not None and model.hold.refit_of is not None:
        needed.add(model.hold.refit_of)
    needed |= set(tracking.reached_by_rollbacks(model, kept.rollbacks))
    if (run_id := tracking.last_promoted_run(tenant_id, family)) is not None:
        needed |= {str(version.version) for version in versions if version.run_id == run_id}
    return needed & {str(version.version) for version in versions}


def _delete_version(tracking: Tracking, version: ModelVersion) -> None:
    number = str(version.version)
    model = tracking.model_aliases(version.name)
    if model is None or number in model.aliases.values():
        return  # a person has given it an alias meanwhile
    if version.run_id:
        tracking.client.set_tag(version.run_id, EXPIRED, "true")
    tracking.client.delete_model_version(version.name, number)


def _finish_deletions(tracking: Tracking, tenant_id: str) -> None:
    """Delete the runs of deleted versions, except those from which a person registered another version."""
    experiment = tracking.client.get_experiment_by_name(tenant_id)
    if experiment is None:
        return
    token = None
    left: list[Run] = []
    while True:
        page = tracking.client.search_runs(
            [experiment.experiment_id],
            f"tags.{EXPIRED} = 'true'",
            run_view_type=ViewType.ACTIVE_ONLY,
            max_results=_PAGE,
            page_token=token,
        )
        left += page
        token = page.token
        if not token:
            break
    for run in left:
        run_id = str(run.info.run_id)
        if not tracking.client.search_model_versions(f"run_id = '{run_id}'", 1):
            _delete_run(tracking, run)


def _delete_run(tracking: Tracking, run: Run) -> None:
    """Delete a run and what it logged. Artefacts go first, because a run that is marked as deleted is not searched."""
    found = tracking.client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'", max_results=50
    )
    for model in found:
        _delete_artifacts(tracking, model.artifact_location)
        tracking.client.delete_logged_model(model.model_id)
    _delete_artifacts(tracking, run.info.artifact_uri)
    tracking.client.delete_run(run.info.run_id)


def _delete_artifacts(tracking: Tracking, location: str) -> None:
    get_artifact_repository(location, tracking_uri=tracking.uri).delete_artifacts()  # type: ignore[no-untyped-call]
