"""Training/serving parity: whether requests see the same histories of users as training does, event by event.

A snapshot holds what the lake held when it was built. Requests read the database as it is now, so what came since is
taken off first: the rows whose transaction ids are at or above the lake's cursor of that time. Both sides keep a user's
newest events only, so they are compared from the moment on that both hold completely.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.history import HistorySettings
from feature_store import columns as c
from feature_store.lake import Cursor, TenantLake
from feature_store.online import NEWEST_FIRST_SQL, Histories, build_histories, form_of, newest_events_sql
from feature_store.query_database import query_database
from feature_store.snapshot_files import SNAPSHOT_ITEMS_FILE, SnapshotManifest, snapshot_parts
from feature_store.sources import EVENT_SQL, repeatable_read

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SnapshotUsers:
    """Some users of a snapshot, by the id that the snapshot does not hold, and the items that it knows."""

    ids: list[str]
    positions: npt.NDArray[np.int64]  # [n_users] in the snapshot
    item_ids: frozenset[str]  # of the catalogue that the snapshot was built with


@dataclass(frozen=True, eq=False)
class RequestReads:
    """What the database holds of some users. Rows name a user by the index in the list that was asked for."""

    kept: list[bytes | None]  # by user: the history that requests send, where it is kept and up to date
    recent: pa.Table  # columns of RECENT_EVENTS: the newest events of every user
    later: pa.Table  # the same of the newest events that the snapshot cannot hold
    gone: npt.NDArray[np.bool_]  # [n_users] erased since, or not in the database


@dataclass(frozen=True, eq=False)
class Events:
    """Events of users as columns of equal length [n], those of a user next to each other and in their order."""

    users: Int64s
    items: Int64s  # positions, -1 where the snapshot does not know the item
    types: Int64s
    weights: npt.NDArray[np.float32]
    timestamps: Int64s

    def rows(self) -> Int64s:
        """The events as rows of integers, int64 [n, 5], user and time first. Of weights the bits are compared."""
        bits = self.weights.astype(np.float32).view(np.int32).astype(np.int64)
        return np.column_stack((self.users, self.timestamps, self.items, self.types, bits))


@dataclass(frozen=True)
class ParityCounts:
    """What a comparison of histories came to."""

    users: int  # compared
    events: int  # of these users, in training
    kept: int  # users whose history was read as the bytes that requests send
    differing_users: int
    only_in_training: int  # events
    only_in_requests: int
    in_another_order: int  # within one moment, of users whose events are the same otherwise


def sample_snapshot_users(
    lake: TenantLake, cursor: Cursor, manifest: SnapshotManifest, at_most: int
) -> SnapshotUsers | None:
    """Some users of a snapshot: those whose ids have the smallest hashes, so that a repeated call takes the same ones.

    cursor: the lake's when the snapshot was built.

    Returns None where the lake no longer holds what the snapshot was built from, as after an erasure.
    """
    catalogue = lake.catalogue_file(manifest.catalogue_version)
    files = [str(file) for key, file in lake.interactions_by_key().items() if cursor.covers(key)]
    if not files or catalogue is None:
        return None
    with query_database(lake.folder) as database:
        found = database.sql(_USERS, params={"files": files, "items": str(catalogue), "n": at_most}).to_arrow_table()
        items = database.sql(f"SELECT {c.ITEM_ID} FROM read_parquet($items)", params={"items": str(catalogue)})  # noqa: S608
        known = frozenset(items.to_arrow_table()[c.ITEM_ID].to_pylist())
    if not found.num_rows or found["n_users"][0].as_py() != manifest.n_users:
        return None
    return SnapshotUsers(found[c.USER_ID].to_pylist(), found["position"].to_numpy(), known)


def training_histories(folder: Path, users: SnapshotUsers, max_events: int) -> tuple[Histories, dict[str, int]]:
    """The histories that models were trained on, in the order of `users`, and the position of each item they know."""
    with query_database(folder.parent) as database:
        wanted = pa.table({c.USER: users.positions.astype(np.int32), "row": np.arange(len(users.positions))})
        database.register("wanted", wanted)
        parts = [str(part) for part in snapshot_parts(folder)]
        events = database.sql(_SNAPSHOT_EVENTS, params={"files": parts}).to_arrow_table()
        items = database.sql(_SNAPSHOT_ITEMS, params={"file": str(folder / SNAPSHOT_ITEMS_FILE)}).to_arrow_table()
    rows, item, kind, weight, timestamp = (
        events[name].to_numpy() for name in ("row", c.ITEM, c.TYPE, c.WEIGHT, c.TIMESTAMP)
    )
    known = {
        item_id: position
        for item_id, position in zip(items[c.ITEM_ID].to_pylist(), items[c.ITEM].to_pylist(), strict=True)
        if item_id in users.item_ids
    }
    return build_histories(rows, item, kind, weight, timestamp, len(users.ids), max_events), known


def read_requests(
    url: str, tenant_id: str, users: Sequence[str], cursor: Cursor, settings: HistorySettings
) -> RequestReads | None:
    """What requests read of these users now, and what of it came after the snapshot, from one state of the database.

    Returns None where the cursor counts transactions of another cluster, as after a restore.
    """
    ids, bound = json.dumps(list(users)), str(cursor.next_xid)
    with repeatable_read(url) as database:
        database.execute("SELECT cluster_identity() AS cluster")
        if cursor.cluster not in {None, database.fetch_arrow_table()["cluster"][0].as_py()}:
            return None

        def read(query: str, *parameters: Any) -> pa.Table:
            database.execute(query, (tenant_id, ids, *parameters))
            return database.fetch_arrow_table()

        max_events = settings.max_events
        state = read(_STATE, bound, form_of(settings))
        return RequestReads(
            kept=state["events"].to_pylist(),
            recent=read(_RECENT.format(events=_OF_USER), max_events),
            later=read(_RECENT.format(events=_LATER), max_events, bound),
            gone=state["gone"].to_numpy(zero_copy_only=False),
        )


def compare_histories(
    training: Events, requests: Events, later: Events, complete: npt.NDArray[np.bool_], since: Int64s, kept: int
) -> ParityCounts:
    """Compare, user by user, training's events with those of requests less the later ones.

    Events of one time are compared in their order too, where both sides have the same ones and none is later.

    Args:
        training, requests, later: events of users in [0, n_users).
        complete: bool [n_users], the users that are compared.
        since: int64 [n_users], events up to this time are left out: one side may hold only a part of them.
        kept: users whose history was read as bytes.
    """
    rows, signs = [], []
    for events, sign in ((training, 1), (later, 1), (requests, -1)):
        used = complete[events.users] & (events.timestamps > since[events.users]) & (events.items >= 0)
        rows.append(events.rows()[used])
        signs.append(np.full(int(used.sum()), sign))
    distinct, surplus = _surplus(rows, signs)
    differing = distinct[surplus != 0]
    unordered = np.concatenate((differing, rows[1]))[:, :2]
    placed = [np.column_stack((each, _places(each[:, :2], unordered))) for each in rows]
    in_order, moved = _surplus(placed, signs)
    moved[np.isin(in_order[:, 0], differing[:, 0])] = 0  # users who are counted already
    return ParityCounts(
        users=int(complete.sum()),
        events=len(rows[0]),
        kept=kept,
        differing_users=len(np.unique(np.concatenate((differing[:, 0], in_order[moved != 0, 0])))),
        only_in_training=int(surplus[surplus > 0].sum()),
        only_in_requests=int(-surplus[surplus < 0].sum()),
        in_another_order=int(moved[moved > 0].sum()),
    )


def _surplus(rows: Sequence[Int64s], signs: Sequence[Int64s]) -> tuple[Int64s, Int64s]:
    """The distinct rows of all sides, int64 [n, columns], and the sum of the signs of each, int64 [n]."""
    distinct, inverse = np.unique(np.concatenate(rows), axis=0, return_inverse=True)
    return distinct, np.bincount(inverse.ravel(), np.concatenate(signs), len(distinct)).astype(np.int64)


def _places(moments: Int64s, unordered: Int64s) -> Int64s:
    """The place of each event within its moment, int64 [n]; 0 in a moment that is among the unordered.

    moments: int64 [n, 2] user and time, equal ones next to each other; unordered: int64 [m, 2].
    """
    distinct, moment_of = np.unique(np.concatenate((moments, unordered)), axis=0, return_inverse=True)
    of_events, of_unordered = np.split(moment_of.ravel(), [len(moments)])
    places = np.arange(len(of_events))
    begins = np.append(True, of_events[1:] != of_events[:-1])[: len(of_events)]
    ordered = np.ones(len(distinct), dtype=bool)
    ordered[of_unordered] = False
    return np.where(ordered[of_events], places - np.maximum.accumulate(np.where(begins, places, 0)), 0)


_USERS = f"""
WITH accepted AS (
    SELECT * FROM read_parquet($files)
    QUALIFY row_number() OVER (PARTITION BY {c.INTERACTION_ID} ORDER BY {c.INGESTED_AT}, {c.USER_ID}) = 1
), users AS (
    SELECT DISTINCT {c.USER_ID} FROM accepted SEMI JOIN read_parquet($items) AS catalogue USING ({c.ITEM_ID})
)
SELECT {c.USER_ID}, row_number() OVER (ORDER BY {c.USER_ID}) - 1 AS position, count(*) OVER () AS n_users
FROM users ORDER BY md5({c.USER_ID}) LIMIT $n
"""  # noqa: S608 - constants of this code base

_SNAPSHOT_EVENTS = f"""
SELECT wanted.row, {c.ITEM}, {c.TYPE}, {c.WEIGHT}, {c.TIMESTAMP}
FROM read_parquet($files, file_row_number = true) AS events JOIN wanted ON wanted."{c.USER}" = events."{c.USER}"
ORDER BY events."{c.USER}", events.file_row_number
"""  # noqa: S608

_SNAPSHOT_ITEMS = f"SELECT {c.ITEM}, {c.ITEM_ID} FROM read_parquet($file)"  # noqa: S608

_WANTED = "jsonb_array_elements_text($2::text::jsonb) WITH ORDINALITY AS wanted (id, place)"

_STATE = f"""
SELECT kept.events, users.id IS NULL OR EXISTS (
    SELECT FROM tombstones WHERE tenant_id = $1 AND user_id = wanted.id AND xid >= $3::text::xid8
) AS gone
FROM {_WANTED}
LEFT JOIN users ON users.tenant_id = $1 AND users.id = wanted.id
LEFT JOIN user_histories AS kept
    ON kept.tenant_id = $1 AND kept.user_id = wanted.id AND kept.version = users.history_version
    AND kept.form = $4::integer
ORDER BY wanted.place
"""  # noqa: S608

_OF_USER = newest_events_sql("$1", "wanted.id", "$3::bigint")
# Rows were exported before they were moved to the archive, so none of these is there.
_LATER = "SELECT * FROM interactions WHERE tenant_id = $1 AND user_id = wanted.id AND xid >= $4::text::xid8"
_RECENT = f"""
SELECT (wanted.place - 1)::int AS "{c.USER}", event.{c.ITEM_ID}, event.type AS {c.TYPE}, event.{c.WEIGHT},
    event.{c.TIMESTAMP}
FROM {_WANTED}
CROSS JOIN LATERAL (
    SELECT {EVENT_SQL}, row_number() OVER (ORDER BY {NEWEST_FIRST_SQL}) AS age
    FROM ({{events}}) AS of_user
    ORDER BY {NEWEST_FIRST_SQL} LIMIT $3::bigint
) AS event
ORDER BY wanted.place, event.age DESC
"""  # noqa: S608
