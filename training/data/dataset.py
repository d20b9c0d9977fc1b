"""What models are trained on: the events and the item table of one feature snapshot, by position."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from feature_store import columns as c
from feature_store import schemas
from feature_store.interaction_types import TYPE_CODES, SeenPolicy, event_weights
from feature_store.online import Histories, build_histories
from feature_store.snapshot_files import snapshot_parts
from training.data.mapped_columns import MAPPED_FROM, check_columns, selected, snapshot_columns
from training.data.stored_metadata import StoredMetadata

MIN_REPEAT_SHARE = 0.2
"""From this share of repeating events on (`Dataset.repeat_share`), models learn repeats."""
EVENTS_AT_ONCE = 5_000_000
"""Events that are processed at a time where all of them are needed one after the other."""


@dataclass(frozen=True)
class Interactions:
    """Events as columns of equal length, sorted by (user, timestamp, item)."""

    users: npt.NDArray[np.int32]  # [n]
    items: npt.NDArray[np.int32]  # [n]
    types: npt.NDArray[np.int8]  # [n]
    weights: npt.NDArray[np.float32]  # [n]
    timestamps: npt.NDArray[np.int64]  # [n] microseconds since the epoch
    spool: Path | None = field(default=None, kw_only=True)
    """A folder for temporary files that are computed from these events; None where they come from no snapshot."""
    mapped_from: int = field(default=MAPPED_FROM, kw_only=True)
    """Number of events from which on `where` maps the selected events from files in the spool."""

    def __len__(self) -> int:
        return len(self.users)

    @property
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The columns in the order of `schemas.SNAPSHOT_INTERACTIONS`."""
        return self.users, self.items, self.types, self.weights, self.timestamps

    def part(self, start: int, stop: int) -> "Interactions":
        """The events `[start, stop)` as views of these arrays."""
        return Interactions(*(column[start:stop] for column in self.columns))

    def where(self, mask: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Interactions":
        """The events under a bool mask [n], or at these int64 indices in this order."""
        large = mask.dtype == bool and len(mask) >= self.mapped_from and np.count_nonzero(mask) >= self.mapped_from
        if large and self.spool is not None:
            found = selected(self.columns, mask.astype(np.bool_, copy=False), self.spool)
        else:
            found = tuple(column[mask] for column in self.columns)
        return Interactions(*found, spool=self.spool, mapped_from=self.mapped_from)


@dataclass(frozen=True)
class ItemTable:
    """The catalogue by position: row i describes item position i."""

    ids: npt.NDArray[np.object_]  # [n_items] str
    metadata: Sequence[dict[str, Any]]  # [n_items]
    active: npt.NDArray[np.bool_]  # [n_items]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def metadata_values(self) -> int:
        """The number of fields in the metadata of all items together."""
        return sum(map(len, self.metadata))


@dataclass(frozen=True)
class Dataset:
    """Events of `n_users` users with the items of one catalogue. Users are positions: it holds no user id."""

    interactions: Interactions
    items: ItemTable
    n_users: int
    snapshot_id: str = ""
    max_events: int = field(default=200)
    exclude_seen: SeenPolicy | None = None
    """The policy on seen items by which lists are ranked, in evaluations and for requests; None where nobody said."""

    @property
    def ranking_mask(self) -> SeenPolicy:
        """Which seen items the rankings leave out by which a fit chooses: those that its lists will leave out.

        Without a policy it is none where users repeat items. There must be an event.
        """
        if self.exclude_seen is not None:
            return self.exclude_seen
        return "none" if self.repeat_share >= MIN_REPEAT_SHARE else "all"

    @property
    def n_items(self) -> int:
        return len(self.items)

    def histories(self, users: npt.NDArray[np.int32] | None = None) -> Histories:
        """The histories of these users (default: all, in order), bounded by `max_events`.

        users: int32 [batch], distinct positions.
        """
        events = self.interactions
        if users is None:
            rows, n_rows = events.users.astype(np.int64), self.n_users
        else:
            row_of = np.full(self.n_users, -1, dtype=np.int64)
            row_of[users] = np.arange(len(users))
            events = events.where((row_of >= 0)[events.users])
            rows, n_rows = row_of[events.users], len(users)
        _, items, types, weights, timestamps = events.columns
        return build_histories(rows, items, types, weights, timestamps, n_rows, self.max_events)

    def sampled_histories(self, max_users: int, seed: int) -> Histories:
        """The histories of at most `max_users` users, drawn with the seed, in the order of users."""
        if self.n_users <= max_users:
            return self.histories()
        drawn = np.random.default_rng(seed).choice(self.n_users, max_users, replace=False)
        return self.histories(np.sort(drawn).astype(np.int32))

    def histories_in_parts(self, n_events: int = EVENTS_AT_ONCE) -> Iterator[tuple[int, Histories]]:
        """The histories of all users in parts of about `n_events` events, each with the position of its first user.

        The parts are in the order of users, and a part holds whole users. Building histories takes many times the
        memory of their events.
        """
        events, first = self.interactions, 0
        if len(events) <= n_events:
            yield 0, self.histories()
            return
        while first < self.n_users:
            start = int(np.searchsorted(events.users, first))
            last = int(events.users[start + n_events]) if start + n_events < len(events) else self.n_users - 1
            part = slice(start, int(np.searchsorted(events.users, last, side="right")))
            rows = events.users[part].astype(np.int64) - first
            items, types, weights, timestamps = (column[part] for column in events.columns[1:])
            yield first, build_histories(rows, items, types, weights, timestamps, last + 1 - first, self.max_events)
            first = last + 1

    def served_by(self, exclude_seen: SeenPolicy) -> "Dataset":
        """The same data set, whose lists are ranked by this policy on seen items."""
        return self if self.exclude_seen == exclude_seen else replace(self, exclude_seen=exclude_seen)

    def where(self, mask: npt.NDArray[np.bool_]) -> "Dataset":
        """The same users and catalogue with only the events under the mask, bool [n_events]."""
        return replace(self, interactions=self.interactions.where(mask))

    @cached_property
    def seen(self) -> sp.csr_array:
        """bool [n_users, n_items]: every item a user interacted with, without the bound on histories."""
        events = self.interactions
        matrix = sp.coo_array(
            (np.ones(len(events), dtype=bool), (events.users, events.items)), shape=(self.n_users, self.n_items)
        ).tocsr()
        matrix.sum_duplicates()
        return matrix

    @property
    def repeat_share(self) -> float:
        """Share of the events whose user had the item before. There must be an event."""
        return 1 - self.seen.nnz / len(self.interactions)


def load_snapshot(folder: Path, max_events: int = 200, mapped_from: int = MAPPED_FROM) -> Dataset:
    """The data set of the feature snapshot in `folder`.

    Args:
        folder: holds items.parquet, manifest.json and the parts as `feature_store.snapshot_files` describes them.
        max_events: bound on every history, `HistorySettings.max_events`.
        mapped_from: events from which on columns are mapped from files instead of held in memory; at least 1.

    Raises:
        FileNotFoundError: a file of the snapshot is missing.
        ValueError: a table has other columns than its schema, or positions out of order.
    """
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=dict[str, Any])
    items = _read_table(folder / "items.parquet", schemas.SNAPSHOT_ITEMS)
    if not np.array_equal(items[c.ITEM].to_numpy(), np.arange(items.num_rows)):
        raise ValueError(f"{folder / 'items.parquet'}: row i must hold item position i")
    return Dataset(
        interactions=_snapshot_interactions(folder, mapped_from),
        items=ItemTable(
            ids=np.array(items[c.ITEM_ID].to_pylist(), dtype=object),
            metadata=StoredMetadata(items[c.METADATA]),
            active=items[c.IS_ACTIVE].to_numpy(zero_copy_only=False),
        ),
        n_users=int(manifest["n_users"]),
        snapshot_id=str(manifest["snapshot_id"]),
        max_events=max_events,
    )


def _snapshot_interactions(folder: Path, mapped_from: int) -> Interactions:
    parts = snapshot_parts(folder)
    if sum(pq.read_metadata(part).num_rows for part in parts) >= mapped_from:
        columns = snapshot_columns(folder)
    else:
        tables = [_read_table(part, schemas.SNAPSHOT_INTERACTIONS) for part in parts]
        events = tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()
        columns = tuple(events[name].to_numpy() for name in schemas.SNAPSHOT_INTERACTIONS.names)
    return Interactions(*columns, spool=folder.parent, mapped_from=mapped_from)


def _read_table(path: Path, schema: pa.Schema) -> pa.Table:
    table = pq.read_table(path)
    check_columns(table.column_names, path, schema)
    return table.select(schema.names).cast(schema).combine_chunks()


def from_events(
    events: pa.Table | pd.DataFrame,
    items: pa.Table | pd.DataFrame | None = None,
    max_events: int = 200,
    snapshot_id: str = "",
) -> Dataset:
    """A data set from events that name users and items by id, for notebooks, benchmarks and tests.

    Args:
        events: user_id, item_id, timestamp (a datetime, or integer microseconds since the epoch) and, where known,
            interaction_type (default: click) and value (0-1, null where none was given).
        items: item_id, metadata (a dict, a JSON object as text, or nothing) and, optionally, is_active. Default: the
            items of the events, without metadata. Positions follow this table's order.
        max_events: bound on every history.
        snapshot_id: name of the data in reports.

    Raises:
        ValueError: a column is missing, an event lacks its user, item or time or has a value outside 0-1, or it names
            an item that `items` lacks; an item is listed twice, or its metadata is no object.
    """
    frame = events.to_pandas() if isinstance(events, pa.Table) else events
    if missing := {c.USER_ID, c.ITEM_ID, c.TIMESTAMP} - set(frame.columns):
        raise ValueError(f"events lack the columns {sorted(missing)}")
    for name in (c.USER_ID, c.ITEM_ID, c.TIMESTAMP):
        if empty := int(frame[name].isna().sum()):
            raise ValueError(f"{empty} of {len(frame)} events have no {name}")
    table = _item_table(items, frame[c.ITEM_ID])
    position_of = {item_id: position for position, item_id in enumerate(table.ids)}
    positions = frame[c.ITEM_ID].map(position_of)
    if positions.isna().any():
        raise ValueError(f"item {frame[c.ITEM_ID][positions.isna()].iloc[0]!r} has events but is not among the items")
    users, user_ids = pd.factorize(frame[c.USER_ID], sort=True)
    types = frame.get(c.INTERACTION_TYPE, pd.Series("click", index=frame.index)).map(TYPE_CODES)
    if types.isna().any():
        raise ValueError(f"interaction_type must be one of {', '.join(c.INTERACTION_TYPES)}")
    values = frame.get(c.VALUE, pd.Series(np.nan, index=frame.index)).to_numpy(dtype=np.float32, na_value=np.nan)
    if (outside := values[(values < 0) | (values > 1)]).size:
        raise ValueError(f"a value must lie between 0 and 1, not at {outside[0]:g}")
    codes = types.to_numpy(dtype=np.int8)
    columns = Interactions(
        users=users.astype(np.int32),
        items=positions.to_numpy(dtype=np.int32),
        types=codes,
        weights=event_weights(codes, values),
        timestamps=_microseconds(frame[c.TIMESTAMP]),
    )
    order = np.lexsort((columns.items, columns.timestamps, columns.users))
    return Dataset(columns.where(order), table, len(user_ids), snapshot_id, max_events)


def _item_table(items: pa.Table | pd.DataFrame | None, event_items: "pd.Series[Any]") -> ItemTable:
    if items is None:
        ids = np.array(sorted(event_items.unique()), dtype=object)
        return ItemTable(ids, [{} for _ in ids], np.ones(len(ids), dtype=bool))
    frame = items.to_pandas() if isinstance(items, pa.Table) else items
    if (twice := frame[c.ITEM_ID].duplicated()).any():
        raise ValueError(f"item {frame[c.ITEM_ID][twice].iloc[0]!r} is there more than once")
    metadata = [_metadata(value) for value in frame[c.METADATA]]
    active = frame.get(c.IS_ACTIVE, pd.Series(True, index=frame.index)).to_numpy(dtype=bool)
    return ItemTable(frame[c.ITEM_ID].to_numpy(dtype=object), metadata, active)


def _metadata(value: Any) -> dict[str, Any]:
    """The metadata of one cell; an empty cell gives an empty object."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return {}
    found = msgspec.json.decode(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise ValueError(f"metadata must be an object, not {found!r:.100}")
    return found


def _microseconds(times: "pd.Series[Any]") -> npt.NDArray[np.int64]:
    if pd.api.types.is_integer_dtype(times):
        return times.to_numpy(dtype=np.int64)
    return pd.to_datetime(times, utc=True).dt.as_unit("us").astype("int64").to_numpy()
