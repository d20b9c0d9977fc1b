"""Recommendations for many users at once, from columns of their events. The results equal those of single requests."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from configs.history import HistorySettings
from feature_store import columns as c
from feature_store.interaction_types import SeenPolicy, makes_seen
from feature_store.online import build_histories
from serving.overlay import Catalogue
from serving.predictor import Predictor
from serving.queries import RankedLists
from training.models.lists import NO_ITEM


def recommend_users(
    predictor: Predictor,
    catalogue: Catalogue,
    family: str,
    events: pa.Table,
    n_users: int,
    count: int,
    exclude_seen: SeenPolicy,
    bounds: HistorySettings,
) -> RankedLists:
    """For each user the list that a request for `count` items, without other parameters, would get.

    Args:
        catalogue: the predictor's, or one with changes laid over it.
        events: at least the newest `bounds.max_scanned` of each user (RECENT_EVENTS), by user and then newest first.
        n_users: users are numbered 0 to n_users - 1. A user without events gets what a new user gets.
        exclude_seen: which of the items that a user had are left out.
    """
    users = events[c.USER].to_numpy()
    ages = np.arange(len(users)) - np.searchsorted(users, users)  # 0 for the newest event of its user
    ids = events[c.ITEM_ID].combine_chunks().dictionary_encode()
    codes = ids.indices.to_numpy()
    known = [catalogue.position_of.get(id_, NO_ITEM) for id_ in ids.dictionary.to_pylist()]
    positions = np.array(known, dtype=np.int32)[codes]
    types = events[c.TYPE].to_numpy()
    # Reversed, so that events with equal timestamps have the order that they have in a request.
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
    scanned = (ages < bounds.max_scanned) & makes_seen(types, exclude_seen)
    seen = _newest_distinct(users, codes, np.flatnonzero(scanned), bounds.max_seen)
    seen = seen[positions[seen] != NO_ITEM]
    ends = np.searchsorted(users[seen], np.arange(n_users), side="right")
    excluded = [part.tolist() for part in np.split(positions[seen], ends[:-1])] if n_users else []
    return predictor.rank(
        catalogue,
        family,
        histories,
        np.full(n_users, count),
        [None if catalogue.all_visible else catalogue.visible] * n_users,
        excluded,
        np.zeros(n_users),
    )


def _newest_distinct(
    users: npt.NDArray[np.int32], codes: npt.NDArray[np.int32], candidates: npt.NDArray[np.int64], at_most: int
) -> npt.NDArray[np.int64]:
    """The newest candidate of each of a user's items, for the newest `at_most` items of each user.

    users, codes: int32 [n], user and item of each event. candidates: ascending indices into them, newest first within
    a user. Returns some of the candidates, ascending.
    """
    keys = users[candidates].astype(np.int64) << 32 | codes[candidates]
    _, first = np.unique(keys, return_index=True)
    firsts = candidates[np.sort(first)]
    owners = users[firsts]
    return firsts[np.arange(len(firsts)) - np.searchsorted(owners, owners) < at_most]
