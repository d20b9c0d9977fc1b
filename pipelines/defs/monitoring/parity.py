"""Compares the histories of a sample of users, as requests read them, with those that models were trained on."""

from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from feature_store import columns as c
from feature_store.interaction_types import TYPE_CODES
from feature_store.lake import TenantLake
from feature_store.online import Histories
from feature_store.parity import (
    Events,
    Int64s,
    ParityCounts,
    RequestReads,
    compare_histories,
    read_requests,
    sample_snapshot_users,
    training_histories,
)
from feature_store.schemas import RECENT_EVENTS
from feature_store.snapshot_files import read_snapshot_manifest, snapshot_folder
from pipelines.newest_snapshot import newest_snapshot
from pipelines.resources import Installation
from serving.contracts.histories import read_history

SAMPLED_USERS = 500


@dataclass(frozen=True)
class Parity:
    """The outcome: counts, or the reason why nothing could be compared."""

    counts: ParityCounts | None
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether no difference was found."""
        return self.counts is None or not self.counts.differing_users

    @property
    def text(self) -> str:
        """The outcome in words, without the id of any user."""
        if self.counts is None:
            return self.reason
        found = self.counts
        compared = f"{found.events:,} events of {found.users:,} users, {found.kept:,} of them as the bytes of requests"
        if self.holds:
            return f"requests and training see the same: {compared}"
        return (
            f"{found.differing_users:,} users differ: {found.only_in_training:,} events only in training, "
            f"{found.only_in_requests:,} only in requests, {found.in_another_order:,} in another order, of {compared}"
        )


def measure_parity(installation: Installation, tenant_id: str) -> Parity:
    """Compare training and requests on a sample of the users of the tenant's newest snapshot."""
    snapshot = newest_snapshot(installation, tenant_id)
    if snapshot is None:
        return Parity(None, "there is no snapshot yet whose place in the lake is known")
    folder = snapshot_folder(installation.paths.features, tenant_id, snapshot.snapshot_id)
    if not folder.exists():
        return Parity(None, "the newest snapshot was deleted, as after an erasure")
    lake, max_events = TenantLake(installation.paths.lake, tenant_id), installation.history.max_events
    users = sample_snapshot_users(lake, snapshot.cursor, read_snapshot_manifest(folder), SAMPLED_USERS)
    if users is None:
        return Parity(None, "the lake has changed since the newest snapshot was built")
    reads = read_requests(installation.database_url(), tenant_id, users.ids, snapshot.cursor, installation.history)
    if reads is None:
        return Parity(None, "the database was restored since the newest snapshot was built")
    histories, position_of = training_histories(folder, users, max_events)
    return Parity(_compare(histories, reads, position_of, max_events))


def _compare(histories: Histories, reads: RequestReads, position_of: dict[str, int], max_events: int) -> ParityCounts:
    kept = {user: packed for user, packed in enumerate(reads.kept) if packed is not None}
    built = reads.recent.filter(pa.array(~np.isin(reads.recent[c.USER].to_numpy(), list(kept))))
    training = Events(
        users=histories.rows,
        items=histories.items.astype(np.int64),
        types=histories.types.astype(np.int64),
        weights=histories.weights,
        timestamps=histories.timestamps,
    )
    requests = _events(pa.concat_tables([built.cast(RECENT_EVENTS), _unpacked(kept)]), position_of)
    later = _events(reads.later.cast(RECENT_EVENTS), position_of)
    # What a full history holds of its oldest moment may be a part only.
    since = np.maximum(
        _oldest_if_full(training, len(histories), max_events), _oldest_if_full(requests, len(histories), max_events)
    )
    return compare_histories(training, requests, later, ~reads.gone, since, len(kept))


def _unpacked(kept: dict[int, bytes]) -> pa.Table:
    """The histories that requests send, as RECENT_EVENTS."""
    users, events = [], []
    for user, packed in kept.items():
        found = read_history(msgspec.Raw(packed))
        users += [user] * len(found)
        events += found
    columns = [
        users,
        [event.item_id for event in events],
        [TYPE_CODES[event.type] for event in events],
        [event.weight for event in events],
        [event.timestamp for event in events],
    ]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, RECENT_EVENTS, strict=True)], RECENT_EVENTS
    )


def _events(table: pa.Table, position_of: dict[str, int]) -> Events:
    """RECENT_EVENTS with the items' positions in the snapshot."""
    ids = table[c.ITEM_ID].combine_chunks().dictionary_encode()
    positions = np.array([position_of.get(item_id, -1) for item_id in ids.dictionary.to_pylist()], dtype=np.int64)
    return Events(
        users=table[c.USER].to_numpy().astype(np.int64),
        items=positions[ids.indices.to_numpy()],
        types=table[c.TYPE].to_numpy().astype(np.int64),
        weights=table[c.WEIGHT].to_numpy(),
        timestamps=table[c.TIMESTAMP].to_numpy(),
    )


def _oldest_if_full(events: Events, n_users: int, max_events: int) -> Int64s:
    """The oldest moment of each user with `max_events` events, and the smallest integer for the others, [n_users]."""
    never = np.iinfo(np.int64).min
    oldest = np.full(n_users, np.iinfo(np.int64).max)
    np.minimum.at(oldest, events.users, events.timestamps)
    return np.where(np.bincount(events.users, minlength=n_users) >= max_events, oldest, never)
