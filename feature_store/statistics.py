"""Summaries of the lake and of snapshots for Dagster's UI. None shows a user's id or the events of a single user."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store import columns as c
from feature_store.query_database import query_database
from feature_store.snapshot_files import SNAPSHOT_ITEMS_FILE, snapshot_parts

METADATA_WIDTH = 160
"""Characters of an item's metadata that a preview shows."""


# Users are counted for these items only: the distinct pairs of all items and users may not fit in memory.
_MOST_POPULAR = f"""
WITH popular AS (
    SELECT {c.ITEM}, {c.ITEM_ID}, {c.METADATA}
    FROM (SELECT {c.ITEM}, count(*) AS n FROM read_parquet($parts) GROUP BY ALL)
    JOIN read_parquet($items) USING ({c.ITEM})
    ORDER BY n DESC, {c.ITEM_ID} LIMIT $n
)
SELECT {c.ITEM_ID}, {c.METADATA}[:{METADATA_WIDTH}] AS {c.METADATA}, count(*) AS interactions,
    count(DISTINCT "{c.USER}") AS users
FROM read_parquet($parts) JOIN popular USING ({c.ITEM})
GROUP BY ALL ORDER BY interactions DESC, {c.ITEM_ID}
"""  # noqa: S608 - constants of this code base


def interactions_by_type(files: Sequence[Path]) -> list[dict[str, Any]]:
    """One row per interaction type of the lake: interactions, users, items, first and last time."""
    if not files:
        return []
    return _records(
        files[0],
        f"SELECT {c.INTERACTION_TYPE}, count(*) AS interactions, count(DISTINCT {c.USER_ID}) AS users, "  # noqa: S608
        f"count(DISTINCT {c.ITEM_ID}) AS items, min({c.TIMESTAMP})::VARCHAR AS first, "
        f"max({c.TIMESTAMP})::VARCHAR AS last FROM read_parquet(?) GROUP BY ALL ORDER BY interactions DESC",
        [[str(file) for file in files]],
    )


def items_preview(file: Path, n: int = 5) -> list[dict[str, Any]]:
    """The first n items of a catalogue file."""
    return _records(
        file,
        f"SELECT {c.ITEM_ID}, {c.METADATA}[:{METADATA_WIDTH}] AS {c.METADATA}, {c.IS_ACTIVE} "  # noqa: S608
        f"FROM read_parquet(?) ORDER BY {c.ITEM_ID} LIMIT ?",
        [str(file), n],
    )


def interactions_per_day(snapshot: Path) -> tuple[list[date], npt.NDArray[np.int64]]:
    """Days with interactions, ascending, and how many each had, int64 [n_days]."""
    rows = _records(
        snapshot,
        f"SELECT make_timestamp({c.TIMESTAMP})::DATE AS day, count(*) AS n "  # noqa: S608
        f"FROM read_parquet(?) GROUP BY ALL ORDER BY day",
        [_parts(snapshot)],
    )
    return [row["day"] for row in rows], np.array([row["n"] for row in rows], dtype=np.int64)


def item_popularity(snapshot: Path) -> npt.NDArray[np.int64]:
    """Interactions of each item that has any, largest first, int64 [n]."""
    rows = _records(
        snapshot,
        f"SELECT count(*) AS n FROM read_parquet(?) GROUP BY {c.ITEM} ORDER BY n DESC",  # noqa: S608
        [_parts(snapshot)],
    )
    return np.array([row["n"] for row in rows], dtype=np.int64)


def most_popular_items(snapshot: Path, n: int = 10) -> list[dict[str, Any]]:
    """The n items with most interactions."""
    parameters = {"parts": _parts(snapshot), "items": str(snapshot / SNAPSHOT_ITEMS_FILE), "n": n}
    return _records(snapshot, _MOST_POPULAR, parameters)


def _parts(snapshot: Path) -> list[str]:
    return [str(part) for part in snapshot_parts(snapshot)]


def _records(beside: Path, query: str, parameters: list[Any] | dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a query. beside: one of the queried files, or the snapshot's folder."""
    with query_database(beside.parent) as database:
        cursor = database.execute(query, parameters)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
