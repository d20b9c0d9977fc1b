"""Exports: new rows of the database are copied to the lake, each row once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from feature_store import sources
from feature_store.erasure import without_erased
from feature_store.lake import TenantLake
from feature_store.reconciliation import reconcile


@dataclass(frozen=True)
class InteractionsExported:
    """What an export of interactions covered and wrote."""

    lower_xid: int
    upper_xid: int
    new_rows: int
    total_rows: int  # in the lake after this export
    erased_users: int = 0  # users whose rows were deleted from the lake
    removed_rows: int = 0  # that the database does not have, because it was restored to an earlier moment


@dataclass(frozen=True)
class ItemsExported:
    """What an export of the catalogue wrote."""

    catalogue_version: int
    items: int


def export_interactions(
    url: str, lake: Path, tenant_id: str, erase_elsewhere: Callable[[pa.Table], object] | None = None
) -> InteractionsExported:
    """Append the interactions that were committed since the last export, and move the cursor past them.

    The rows of users who were erased since are deleted from the lake. Where an export fails or is interrupted, the
    next one does both. Where the database is in another cluster than at the last export, or was restored, the lake is
    brought in line with it first.

    Args:
        erase_elsewhere: called with the TOMBSTONES of those users, to delete their rows from other files; after a
            restore also without any, to delete what was made of rows that the database does not have.
    """
    sources.adopt_cluster(url)
    tenant = TenantLake(lake, tenant_id)
    with tenant.exporting():
        cursor = tenant.cursor()
        with sources.read_new_interactions(url, tenant_id, cursor.next_xid, cursor.cluster) as new:
            erased = new.tombstones.num_rows
            removed = 0
            if not new.is_continuation:
                reconciled = reconcile(tenant, new, erase_elsewhere)
                rows, removed = reconciled.added, reconciled.removed
            else:
                if erased:
                    tenant.erase(new.tombstones)
                    if erase_elsewhere is not None:
                        erase_elsewhere(new.tombstones)
                batches = without_erased(new.batches, new.tombstones)
                rows = tenant.append_interactions(batches, new.upper_xid, new.cluster)
        return InteractionsExported(new.lower_xid, new.upper_xid, rows, tenant.cursor().rows, erased, removed)


def export_items(url: str, lake: Path, tenant_id: str) -> ItemsExported:
    """Write the present catalogue, under its version."""
    tenant = TenantLake(lake, tenant_id)
    with tenant.exporting(), sources.read_catalogue(url, tenant_id) as catalogue:
        return ItemsExported(catalogue.version, tenant.write_items(catalogue.batches, catalogue.version))
