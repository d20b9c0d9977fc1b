"""Deletes old versions of the tenants' models from MLflow, one tenant after the other."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from configs.storage import open_storage
from feature_store.lake import tenant_folder
from pipelines.defs.training.families import base_models_of
from pipelines.defs.training.steps import tracking_of
from pipelines.resources import Installation
from serving.release import read_manifest, tenant_releases
from training.models.registry import families
from training.tracking.old_versions import KeptVersions, collect_garbage, delete_old_versions

VERSIONS_PER_DELETION = 10
"""Versions that are deleted before the time is checked again."""
GARBAGE_SECONDS = 30.0
MAX_ERROR_LENGTH = 500


@dataclass
class DeletedModels:
    """What one call has done."""

    deleted: int = 0
    cursor: str | None = None
    """Where the next call goes on; None where all tenants were walked through."""
    collected: bool = True
    """Whether MLflow has removed all that was marked as deleted before. The next walk goes on with the rest."""
    failed: dict[str, str] = field(default_factory=dict)
    """The error by tenant. The versions of these tenants are tried again when the walk comes round."""


def delete_old_models(
    installation: Installation,
    tenants: Collection[str],
    is_busy: Callable[[str], bool],
    cursor: str | None = None,
    seconds: float = 20.0,
) -> DeletedModels:
    """Delete the old versions of all tenants, in the order of their ids, and then what MLflow marked as deleted before.

    Args:
        installation: whose MLflow, releases and settings.
        tenants: their ids.
        is_busy: whether a tenant trains or publishes now: it waits for the next call.
        cursor: the tenant after which the walk goes on; None: from the beginning.
        seconds: after which it stops at the next batch.

    A tenant whose versions cannot be read, such as an ensemble without its files, holds up no other.
    """
    began, done, settings = time.monotonic(), DeletedModels(cursor=cursor), installation.retention
    tracking = tracking_of(installation)
    kept = KeptVersions(settings.model_versions, settings.rollbacks)
    ensembles = [family for family in families() if base_models_of(family)]
    for tenant in sorted(each for each in tenants if each > (cursor or "")):
        more = True
        while more and not is_busy(tenant):
            try:
                # Publications hold this lock while they read versions.
                with open_storage(tenant_folder(installation.paths.features, tenant)).lock():
                    released = _released(installation, tenant)
                    batch, more = delete_old_versions(
                        tracking, tenant, kept, released, ensembles, VERSIONS_PER_DELETION
                    )
            except Exception as error:
                done.failed[tenant] = f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH]
                batch, more = 0, False
            done.deleted += batch
            if time.monotonic() - began > seconds:
                done.cursor = done.cursor if more else tenant
                return done
        done.cursor = tenant
    if (store := installation.tracking.store(installation.paths)) is not None:
        done.collected = collect_garbage(tracking, store, settings.mlflow_deleted_days, GARBAGE_SECONDS)
    done.cursor = None
    return done


def _released(installation: Installation, tenant: str) -> dict[str, set[str]]:
    """The versions in all releases that the tenant could be served with, by family."""
    found: dict[str, set[str]] = defaultdict(set)
    home = installation.paths.bentoml
    for release in tenant_releases(home, tenant):
        for family, model in read_manifest(home, tenant, release).families.items():
            found[family].add(model.version)
    return found
