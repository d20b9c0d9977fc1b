"""What the ingestion assets do, without Dagster: export new interactions and delete erased users."""

from datetime import date

import pyarrow as pa

from configs.files import remove_left_scratch
from feature_store.backfill import Backfilled, backfill_interactions
from feature_store.erasure import erase_rejects
from feature_store.exports import InteractionsExported, export_interactions
from feature_store.generation_files import erase_generated
from feature_store.lake import TenantLake
from feature_store.snapshots import prune_snapshots
from pipelines.resources import Installation


def export(installation: Installation, tenant_id: str) -> InteractionsExported:
    """Append a tenant's new interactions to its lake, and delete users who were erased since from every file.

    Feature snapshots name no user but hold what users did. All of the tenant's snapshots are deleted when a user was
    erased; the next training builds a new one.
    """
    paths = installation.paths

    def erase(tombstones: pa.Table) -> None:
        erase_rejects(paths.rejects, tenant_id, tombstones)
        prune_snapshots(paths.features, tenant_id, keep=0)
        for folder in (paths.generation, paths.fits):
            remove_left_scratch(folder)  # of generations and trainings that were killed
        erase_generated(paths.recommendations, tenant_id, tombstones)

    return export_interactions(installation.database_url(), paths.lake, tenant_id, erase)


def backfill(installation: Installation, tenant_id: str, since: date) -> Backfilled:
    """Bring the days of a tenant's lake from one on in line with the database. Call `export` afterwards."""
    return backfill_interactions(installation.database_url(), TenantLake(installation.paths.lake, tenant_id), since)
