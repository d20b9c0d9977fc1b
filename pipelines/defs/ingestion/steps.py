"""What the ingestion assets do, without Dagster: export what is new, and forget who was erased."""

import pyarrow as pa

from feature_store.erasure import erase_rejects
from feature_store.exports import InteractionsExported, export_interactions
from feature_store.snapshots import prune_snapshots
from pipelines.resources import Installation


def export(installation: Installation, tenant_id: str) -> InteractionsExported:
    """Append what is new to the tenant's lake. Users who were erased since lose what they did before in every file.

    Feature snapshots are nobody's by name, and yet what people did: all that hold an erased user's part go, and the
    next training builds its own.
    """
    paths = installation.paths

    def erase(tombstones: pa.Table) -> None:
        erase_rejects(paths.rejects, tenant_id, tombstones)
        prune_snapshots(paths.features, tenant_id, keep=0)

    return export_interactions(installation.database_url(), paths.lake, tenant_id, erase)
