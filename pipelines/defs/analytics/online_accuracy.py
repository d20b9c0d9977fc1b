"""How well the models of each release ranked the items that users chose while the release served."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from feature_store import analytics_sinks, analytics_sources, sources
from feature_store import columns as c
from feature_store.analytics_sinks import ModelAccuracy
from feature_store.analytics_sources import ServingPeriod
from feature_store.interaction_types import SeenPolicy, makes_seen
from feature_store.online import build_histories
from pipelines.resources import Installation
from serving.contracts.releases import BrokenReleaseError
from serving.overlay import Catalogue
from serving.predictor import Predictor
from serving.release import list_releases, release_folder
from training.data.splits import Holdout
from training.evaluation.online_accuracy import measure_online_accuracy

MAX_USERS = 2_000
"""Users of a day that accuracy is measured on, which makes the mean good to about 0.01."""
DAYS = 90
"""Days, up to today, whose accuracy is measured."""
REMEASURED_DAYS = 2
"""Today and yesterday are measured again, since their interactions may still arrive."""


@dataclass(frozen=True)
class MeasuredDay:
    """What the models of a release reached on a day."""

    day: date
    release: str
    models: list[ModelAccuracy]


@dataclass(frozen=True)
class MeasuredReleases:
    """The accuracies that were measured, and the releases that cannot be read any more, with the reason."""

    accuracies: list[MeasuredDay] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)


def measure_releases(
    installation: Installation, tenant_id: str, now: datetime, since: date | None = None
) -> MeasuredReleases:
    """Measure and store the accuracy of every release in the store, on the days that need it.

    A day needs it where no accuracy is stored yet or where it may still change. A day is left out where no user chose
    an item that the release could show.

    since: all of the last DAYS days from this one on are measured again; None: those that need it.
    """
    url, home, history = installation.database_url(), installation.paths.bentoml, installation.history
    exclude_seen = sources.exclude_seen(url, tenant_id)
    result = MeasuredReleases()
    periods = sorted(_periods_to_measure(installation, tenant_id, now, since), key=attrgetter("release", "start"))
    for release, days in groupby(periods, key=attrgetter("release")):
        catalogue = None
        for period in days:
            events = analytics_sources.evaluation_events(
                url, tenant_id, period.start, period.end, MAX_USERS, history.max_seen
            )
            if not events.num_rows:
                continue
            try:
                if catalogue is None:
                    folder = release_folder(home, tenant_id, release)
                    catalogue = Predictor.load(folder, history.max_events).catalogue
            except BrokenReleaseError as error:
                result.broken[release] = str(error)  # the other releases can be measured all the same
                break
            if models := _accuracies(catalogue, events, exclude_seen, history.max_events):
                analytics_sinks.record_accuracy(url, tenant_id, period.day, release, models)
                result.accuracies.append(MeasuredDay(period.day, release, models))
    return result


def _periods_to_measure(
    installation: Installation, tenant_id: str, now: datetime, since: date | None
) -> Iterator[ServingPeriod]:
    url = installation.database_url()
    stored = set(list_releases(installation.paths.bentoml).get(tenant_id, []))
    done = analytics_sources.days_with_accuracy(url, tenant_id)
    first_remeasured = now.date() - timedelta(days=REMEASURED_DAYS - 1)
    if since is not None:
        first_remeasured = min(first_remeasured, since)
    for period in analytics_sources.serving_periods(url, tenant_id, now, DAYS):
        may_change = period.day >= first_remeasured
        if period.release in stored and (may_change or (period.release, period.day) not in done):
            yield period


def _accuracies(
    catalogue: Catalogue, events: pa.Table, exclude_seen: SeenPolicy, max_events: int
) -> list[ModelAccuracy]:
    visible = np.flatnonzero(catalogue.visible).astype(np.int32)
    holdout = build_holdout(catalogue, events, exclude_seen, max_events)
    accuracies = []
    for family, model in catalogue.models.items():
        if (accuracy := measure_online_accuracy(model, holdout, visible)) is not None:
            accuracies.append(ModelAccuracy(family, accuracy.auc, accuracy.users))
    return accuracies


def build_holdout(catalogue: Catalogue, events: pa.Table, exclude_seen: SeenPolicy, max_events: int) -> Holdout:
    """Turn evaluation events into histories, targets and masks.

    Items that the catalogue does not know are left out, and so are targets that it may not show or that the policy on
    seen items masks. Users without any target left are left out.

    Args:
        events: EVALUATION_EVENTS.
        max_events: bound on the length of a history.

    Returns:
        Histories hold positions in the catalogue. The columns of targets and masks count the visible items only.
    """
    users, types = events[c.USER].to_numpy(), events[c.TYPE].to_numpy()
    ids = events[c.ITEM_ID].combine_chunks().dictionary_encode()
    known = [catalogue.position_of.get(id_, -1) for id_ in ids.dictionary.to_pylist()]
    items = np.array(known, dtype=np.int32)[ids.indices.to_numpy()]
    is_target = events[c.IS_TARGET].to_numpy(zero_copy_only=False)
    column_of = np.where(catalogue.visible, np.cumsum(catalogue.visible) - 1, -1)
    columns = np.where(items >= 0, column_of[items], -1)
    n_users, n_visible = int(users.max(initial=-1)) + 1, int(catalogue.visible.sum())
    past = ~is_target & (items >= 0)
    histories = build_histories(
        users[past].astype(np.int64),
        items[past],
        types[past],
        events[c.WEIGHT].to_numpy()[past],
        events[c.TIMESTAMP].to_numpy()[past],
        n_users,
        max_events,
    )
    seen = ~is_target & (columns >= 0) & makes_seen(types, exclude_seen)
    masked = _matrix(users[seen], columns[seen], (n_users, n_visible))
    wanted = is_target & (columns >= 0)
    targets = _matrix(users[wanted], columns[wanted], (n_users, n_visible))
    targets = (targets.astype(np.int8) - targets.multiply(masked).astype(np.int8)).astype(bool)
    targets.eliminate_zeros()
    everyone = Holdout(np.arange(n_users, dtype=np.int32), histories, targets, masked)
    return everyone.take(np.flatnonzero(np.diff(targets.indptr)))


def _matrix(
    rows: npt.NDArray[np.integer[Any]], columns: npt.NDArray[np.integer[Any]], shape: tuple[int, int]
) -> sp.csr_array:
    return sp.csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=shape, dtype=bool)
