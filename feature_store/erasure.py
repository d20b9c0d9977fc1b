"""Files forget erased users: the rows that came up to a tombstone's moment go, later ones are another user's."""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.files import PRIVATE, atomic_file, remove_unfinished_copies
from feature_store import columns as c

_WRITTEN_AT = re.compile(r"(?P<tenant>.+)-(?P<moment>\d{8}T\d{12})\.jsonl")
"""Name of a file of rejected rows: `<tenant>-<YYYYMMDDTHHMMSSffffff>.jsonl`, in UTC."""


def without(batches: Iterable[pa.RecordBatch], tombstones: pa.Table) -> Iterator[pa.RecordBatch]:
    """The batches (LAKE_INTERACTIONS) without the rows of erased users.

    tombstones: TOMBSTONES, each user once.
    """
    for batch in batches:
        yield batch.filter(pc.invert(_gone(batch, tombstones))) if tombstones.num_rows else batch


def holds_erased(file: Path, tombstones: pa.Table) -> bool:
    """Whether a Parquet file with the columns of LAKE_INTERACTIONS has a row that must go."""
    with pq.ParquetFile(file) as parquet:
        batches = parquet.iter_batches(columns=[c.USER_ID, c.INGESTED_AT])
        return any(pc.any(_gone(batch, tombstones)).as_py() for batch in batches)


def erase_rejects(folder: Path, tenant_id: str, tombstones: pa.Table) -> int:
    """Drop, from the tenant's files of rows that imports refused, those that name an erased user. Returns how many.

    Rows are whatever somebody's file held: one goes where the id is a value of it, or a word of what could not be read.
    """
    erased = dict(zip(*(tombstones[name].to_pylist() for name in tombstones.schema.names), strict=True))
    dropped = 0
    for moment, file in rejects_of(folder, tenant_id).items():
        users = [user for user, erased_at in erased.items() if moment <= erased_at]
        if users:
            dropped += _drop_lines(file, users)
    return dropped


def rejects_of(folder: Path, tenant_id: str) -> dict[datetime, Path]:
    """The tenant's files of rejected rows, by the moment of the import."""
    found = {}
    for file in sorted(folder.glob(f"{tenant_id}-*.jsonl")):
        match = _WRITTEN_AT.fullmatch(file.name)
        if match is not None and match["tenant"] == tenant_id:
            found[datetime.strptime(match["moment"], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)] = file
    return found


def _gone(batch: pa.RecordBatch, tombstones: pa.Table) -> pa.Array:
    place = pc.index_in(batch.column(c.USER_ID), value_set=tombstones[c.USER_ID].combine_chunks())
    erased_at = pc.take(tombstones[c.ERASED_AT].combine_chunks(), place)
    return pc.fill_null(pc.less_equal(batch.column(c.INGESTED_AT), erased_at), fill_value=False)


def _drop_lines(file: Path, users: list[str]) -> int:
    named = re.compile("|".join(rf"(?<!\w){re.escape(user)}(?!\w)" for user in users))
    remove_unfinished_copies(file)  # a copy that a killed erasure left may hold rows of this one's users
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not _names(json.loads(line), set(users), named)]
    if len(kept) < len(lines):
        with atomic_file(file, PRIVATE) as temporary:
            temporary.write_bytes(b"".join(kept))
    return len(lines) - len(kept)


def _names(value: Any, users: set[str], named: re.Pattern[str]) -> bool:
    """Whether a value of a decoded JSON document is, or where it is text holds, the id of one of the users."""
    if isinstance(value, dict):
        return any(_names(each, users, named) for pair in value.items() for each in pair)
    if isinstance(value, list):
        return any(_names(each, users, named) for each in value)
    if not isinstance(value, str):
        return str(value) in users
    if value in users:
        return True
    try:
        inner = json.loads(value)
    except ValueError:
        return named.search(value) is not None
    return _names(inner, users, named) if isinstance(inner, dict | list) else named.search(value) is not None
