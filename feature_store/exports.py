"""Exports: new rows of the database are copied to the lake, each row once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from feature_store import sources
from feature_store.erasure import without_erased
from feature_store.lake import TenantLake


@dataclass(frozen=True)
class InteractionsExported:
    """What an export of interactions covered and wrote."""

    lower_xid: int
    upper_xid: int
    new_rows: int
    total_rows: int  # in the lake after this export
    erased_users: int = 0  # users whose rows were deleted from the lake


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
    next one does both.

    Args:
        erase_elsewhere: called with the TOMBSTONES of those users, to delete their rows from other files.

    Raises ValueError where the database is behind the lake's cursor.
    """
    tenant = TenantLake(lake, tenant_id)
    with tenant.exporting():
        lower = tenant.cursor().next_xid
        with sources.read_new_interactions(url, tenant_id, lower) as new:
            erased = new.tombstones.num_rows
            if erased:
                tenant.erase(new.tombstones)
                if erase_elsewhere is not None:
                    erase_elsewhere(new.tombstones)
            rows = tenant.append_interactions(without_erased(new.batches, new.tombstones), new.upper_xid)
        return InteractionsExported(lower, new.upper_xid, rows, tenant.cursor().rows, erased)


def export_items(url: str, lake: Path, tenant_id: str) -> ItemsExported:
    """Write the present catalogue, under its version."""
    tenant = TenantLake(lake, tenant_id)
    with tenant.exporting(), sources.read_catalogue(url, tenant_id) as catalogue:
        return ItemsExported(catalogue.version, tenant.write_items(catalogue.batches, catalogue.version))
