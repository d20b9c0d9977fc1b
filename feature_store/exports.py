"""Exports: what is new in the database moves to the lake, each row once."""

from dataclasses import dataclass
from pathlib import Path

from feature_store import sources
from feature_store.lake import TenantLake


@dataclass(frozen=True)
class InteractionsExported:
    lower_xid: int
    upper_xid: int
    new_rows: int
    total_rows: int  # in the lake after this export


@dataclass(frozen=True)
class ItemsExported:
    catalogue_version: int
    items: int


def export_interactions(url: str, lake: Path, tenant_id: str) -> InteractionsExported:
    """Append the interactions that committed since the last export, and move the cursor past them.

    Raises ValueError where the database is behind the lake's cursor.
    """
    tenant = TenantLake(lake, tenant_id)
    with tenant.exporting():
        lower = tenant.cursor().next_xid
        with sources.new_interactions(url, tenant_id, lower) as new:
            rows = tenant.append_interactions(new.batches, new.upper_xid)
        return InteractionsExported(lower, new.upper_xid, rows, tenant.cursor().rows)


def export_items(url: str, lake: Path, tenant_id: str) -> ItemsExported:
    """Write the catalogue as it is now, under the version it is at."""
    tenant = TenantLake(lake, tenant_id)
    with tenant.exporting(), sources.catalogue(url, tenant_id) as catalogue:
        return ItemsExported(catalogue.version, tenant.write_items(catalogue.batches, catalogue.version))
