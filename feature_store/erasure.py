"""Deletes the rows of erased users from files.

A tombstone deletes the rows that were ingested up to its time. Later rows under the same id are those of a new user.
"""

import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.files import PRIVATE
from configs.storage import Storage, open_storage
from feature_store import columns as c

_WRITTEN_AT = re.compile(r"(?P<tenant>.+)-(?P<written_at>\d{8}T\d{12})\.jsonl")
"""Name of a file of rejected rows: `<tenant>-<YYYYMMDDTHHMMSSffffff>.jsonl`, in UTC."""


def without_erased(
    batches: Iterable[pa.RecordBatch], tombstones: pa.Table, moment: str = c.INGESTED_AT
) -> Iterator[pa.RecordBatch]:
    """The batches without the rows of erased users.

    Args:
        tombstones: TOMBSTONES, each user once.
        moment: the column that is compared with the time of the erasure. Later rows are those of another user.
    """
    for batch in batches:
        yield batch.filter(pc.invert(_is_erased(batch, tombstones, moment))) if tombstones.num_rows else batch


def holds_erased(file: Path, tombstones: pa.Table, moment: str = c.INGESTED_AT) -> bool:
    """Whether a Parquet file holds a row of an erased user. moment: as in `without_erased`."""
    with pq.ParquetFile(file) as parquet:
        batches = parquet.iter_batches(columns=[c.USER_ID, moment])
        return any(pc.any(_is_erased(batch, tombstones, moment)).as_py() for batch in batches)


def erase_rejects(folder: Path, tenant_id: str, tombstones: pa.Table) -> int:
    """Delete rows that name an erased user from the tenant's files of rejected rows. Returns how many.

    A rejected row holds whatever the imported file held. It is deleted where the user's id is one of its values, or a
    word of a text that could not be parsed.
    """
    erased = dict(zip(*(tombstones[name].to_pylist() for name in tombstones.schema.names), strict=True))
    if not folder.exists():
        return 0
    deleted, storage = 0, open_storage(folder)
    with storage.lock():
        storage.remove_unfinished()  # left by a killed import or erasure; it may hold rows of these users
        for written_at, key in rejects_of(folder, tenant_id).items():
            users = [user for user, erased_at in erased.items() if written_at <= erased_at]
            if users:
                deleted += _delete_lines(storage, key, users)
    return deleted


def rejects_of(folder: Path, tenant_id: str) -> dict[datetime, str]:
    """The keys of the tenant's files of rejected rows in this folder, by the time of the import."""
    found = {}
    for key in open_storage(folder).files():
        match = _WRITTEN_AT.fullmatch(key)
        if match is not None and match["tenant"] == tenant_id:
            found[datetime.strptime(match["written_at"], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)] = key
    return found


def _is_erased(batch: pa.RecordBatch, tombstones: pa.Table, moment: str) -> pa.Array:
    index = pc.index_in(batch.column(c.USER_ID), value_set=tombstones[c.USER_ID].combine_chunks())
    erased_at = pc.take(tombstones[c.ERASED_AT].combine_chunks(), index)
    return pc.fill_null(pc.less_equal(batch.column(moment), erased_at), fill_value=False)


def _delete_lines(storage: Storage, key: str, users: list[str]) -> int:
    named = re.compile("|".join(rf"(?<!\w){re.escape(user)}(?!\w)" for user in users))
    lines = storage.local(key).read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not _names(json.loads(line), set(users), named)]
    if len(kept) < len(lines):
        with storage.put(key, PRIVATE) as temporary:
            temporary.write_bytes(b"".join(kept))
    return len(lines) - len(kept)


def _names(value: Any, users: set[str], named: re.Pattern[str]) -> bool:
    """Whether a decoded JSON value is the id of one of the users, or holds it as an element or a word."""
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
