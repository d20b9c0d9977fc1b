"""Lakes written by hand, row by row."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pyarrow as pa

from feature_store import columns as c
from feature_store.lake import TenantLake
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS

TENANT = "acme"
START = datetime(2024, 1, 1, tzinfo=UTC)


def interaction(number: int, user: str | None, item: str, minutes: int = 0, **columns: Any) -> dict[str, Any]:
    """A legal row; `columns` replaces what a test wants otherwise. Equal numbers are the same interaction."""
    return {
        c.INTERACTION_ID: str(uuid5(NAMESPACE_URL, str(number))),
        c.USER_ID: user,
        c.ITEM_ID: item,
        c.INTERACTION_TYPE: "like",
        c.VALUE: None,
        c.TIMESTAMP: START + timedelta(minutes=minutes),
        c.INGESTED_AT: START + timedelta(days=1),
        c.RECOMMENDATION_ID: None,
        **columns,
    }


def write_lake(
    root: Path,
    interactions: Sequence[Mapping[str, Any]] = (),
    items: Mapping[str, str] | None = None,
    version: int = 1,
    schema: pa.Schema = LAKE_INTERACTIONS,
) -> TenantLake:
    """Append interactions, and write a catalogue of item id -> JSON."""
    lake = TenantLake(root, TENANT)
    with lake.exporting():
        batches = pa.Table.from_pylist(list(interactions), schema=schema).to_batches()
        lake.append_interactions(batches, upper_xid=lake.cursor().next_xid + 1)
        if items is not None:
            rows = [
                {c.ITEM_ID: item, c.METADATA: text, c.IS_ACTIVE: True, c.CREATED_AT: START}
                for item, text in items.items()
            ]
            lake.write_items(pa.Table.from_pylist(rows, schema=LAKE_ITEMS).to_batches(), version)
    return lake
