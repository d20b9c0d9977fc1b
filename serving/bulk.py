"""Recommendations for many users at once: the arithmetic of a request, over columns."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.settings import HistorySettings
from feature_store import columns as c
from feature_store.interaction_types import SeenPolicy, makes_seen
from feature_store.online import build_histories
from serving.overlay import Catalogue
from serving.predictor import Lists, Predictor
from training.models.contract import NO_ITEM


def recommend_users(
    predictor: Predictor,
    catalogue: Catalogue,
    family: str,
    events: pa.Table,
    n_users: int,
    count: int,
    exclude_seen: SeenPolicy,
    bounds: HistorySettings,
) -> Lists:
    """What `recommend` answers to each of these users who asks for `count` items and nothing else.

    Args:
        catalogue: the predictor's, or one laid over it.
        events: the newest `bounds.looked_at` of each user or more (RECENT_EVENTS), by user and then newest first.
        n_users: users are the places 0 to n_users - 1; one without events is cold.
        exclude_seen: which of the items that a user had are left out.
    """
    users = events[c.USER].to_numpy()
    ages = np.arange(len(users)) - np.searchsorted(users, users)  # 0 for the newest event of its user
    ids = events[c.ITEM_ID].combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy()
    known = [catalogue.position_of.get(id_, NO_ITEM) for id_ in ids.dictionary.to_pylist()]
    positions = np.array(known, dtype=np.int32)[codes]
    types = events[c.TYPE].to_numpy()
    # Reversed, so that events of one moment come in the order that requests have them in.
    kept = np.flatnonzero((ages < bounds.max_events) & (positions != NO_ITEM))[::-1]
    histories = build_histories(
        users[kept].astype(np.int64),
        positions[kept],
        types[kept],
        events[c.WEIGHT].to_numpy()[kept],
        events[c.TIMESTAMP].to_numpy()[kept],
        n_users,
        bounds.max_events,
    )
    looked_at = (ages < bounds.looked_at) & makes_seen(types, exclude_seen)
    seen = _newest_distinct(users, codes, np.flatnonzero(looked_at), bounds.max_seen)
    seen = seen[positions[seen] != NO_ITEM]
    ends = np.searchsorted(users[seen], np.arange(n_users), side="right")
    excluded = [part.tolist() for part in np.split(positions[seen], ends[:-1])] if n_users else []
    return predictor.lists(
        catalogue,
        family,
        histories,
        np.full(n_users, count),
        [catalogue.visible] * n_users,
        excluded,
        np.zeros(n_users),
    )


def _newest_distinct(
    users: npt.NDArray[np.int32], codes: npt.NDArray[np.int32], candidates: npt.NDArray[np.int64], at_most: int
) -> npt.NDArray[np.int64]:
    """The first candidate of each item of a user, for the first `at_most` items of each. Ascending, as candidates."""
    keys = users[candidates].astype(np.int64) << 32 | codes[candidates]
    _, first = np.unique(keys, return_index=True)
    firsts = candidates[np.sort(first)]
    owners = users[firsts]
    return firsts[np.arange(len(firsts)) - np.searchsorted(owners, owners) < at_most]
