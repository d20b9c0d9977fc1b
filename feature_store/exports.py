"""Exports: what is new in the database moves to the lake, each row once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from feature_store import sources
from feature_store.erasure import without
from feature_store.lake import TenantLake


@dataclass(frozen=True)
class InteractionsExported:
    lower_xid: int
    upper_xid: int
    new_rows: int
    total_rows: int  # in the lake after this export
    erased_users: int = 0  # whose rows went from the lake


@dataclass(frozen=True)
class ItemsExported:
    catalogue_version: int
    items: int


def export_interactions(
    url: str, lake: Path, tenant_id: str, erase_elsewhere: Callable[[pa.Table], object] | None = None
) -> InteractionsExported:
    """Append the interactions that committed since the last export, and move the cursor past them.

    Users who were erased since lose what they did before: in the lake, and wherever `erase_elsewhere` is for, which is
    told their TOMBSTONES. An export that fails or is cut off leaves them to the next one.
    Raises ValueError where the database is behind the lake's cursor.
    """
    tenant = TenantLake(lake, tenant_id)
    with tenant.exporting():
        lower = tenant.cursor().next_xid
        with sources.new_interactions(url, tenant_id, lower) as new:
            erased = new.tombstones.num_rows
            if erased:
                tenant.erase(new.tombstones)
                if erase_elsewhere is not None:
                    erase_elsewhere(new.tombstones)
            rows = tenant.append_interactions(without(new.batches, new.tombstones), new.upper_xid)
        return InteractionsExported(lower, new.upper_xid, rows, tenant.cursor().rows, erased)


def export_items(url: str, lake: Path, tenant_id: str) -> ItemsExported:
    """Write the catalogue as it is now, under the version it is at."""
    tenant = TenantLake(lake, tenant_id)
    with tenant.exporting(), sources.catalogue(url, tenant_id) as catalogue:
        return ItemsExported(catalogue.version, tenant.write_items(catalogue.batches, catalogue.version))
