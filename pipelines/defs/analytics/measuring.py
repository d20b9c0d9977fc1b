"""Measuring the releases that served on what users chose meanwhile."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from feature_store import analytics_sinks, analytics_sources, sources
from feature_store import columns as c
from feature_store.analytics_sinks import Accuracy
from feature_store.analytics_sources import Service
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
"""Users of a day that accuracy is measured on, always the same ones: the figure is then good to about 0.01."""
DAYS = 90
REMEASURED_DAYS = 2
"""Today and yesterday are measured again: interactions of theirs may still arrive."""


@dataclass(frozen=True)
class Measured:
    """What the models of a release reached on a day."""

    day: date
    release: str
    models: list[Accuracy]


@dataclass(frozen=True)
class Outcome:
    """What could be measured, and the releases that cannot be read any more, with the reason."""

    measured: list[Measured]
    broken: dict[str, str]


def measure(installation: Installation, tenant_id: str, now: datetime) -> Outcome:
    """Measure every release of the store on each day that it served on and that has no accuracy yet, or may change.

    A day on which nobody chose an item that the release could show is left out.
    """
    url, home, max_events = installation.database_url(), installation.paths.bentoml, installation.history.max_events
    stored = set(list_releases(home).get(tenant_id, []))
    done = analytics_sources.measured(url, tenant_id)
    last = now.date() - timedelta(days=REMEASURED_DAYS - 1)
    due: dict[str, list[Service]] = {}
    for service in analytics_sources.services(url, tenant_id, now, DAYS):
        if service.release in stored and (service.day >= last or (service.release, service.day) not in done):
            due.setdefault(service.release, []).append(service)
    exclude_seen = sources.exclude_seen(url, tenant_id)
    outcome = Outcome([], {})
    for release, days in due.items():
        catalogue = None
        for service in days:
            asked = analytics_sources.questions(
                url, tenant_id, service.start, service.end, MAX_USERS, installation.history.max_seen
            )
            if not asked.num_rows:
                continue
            try:
                catalogue = catalogue or Predictor.load(release_folder(home, tenant_id, release), max_events).catalogue
            except BrokenReleaseError as error:
                outcome.broken[release] = str(error)  # the others can be measured all the same
                break
            if models := _accuracies(catalogue, asked, exclude_seen, max_events):
                analytics_sinks.record_accuracy(url, tenant_id, service.day, release, models)
                outcome.measured.append(Measured(service.day, release, models))
    return outcome


def _accuracies(catalogue: Catalogue, asked: pa.Table, exclude_seen: SeenPolicy, max_events: int) -> list[Accuracy]:
    shown = np.flatnonzero(catalogue.visible).astype(np.int32)
    holdout = questions(catalogue, asked, exclude_seen, max_events)
    accuracies = []
    for family, model in catalogue.models.items():
        if (accuracy := measure_online_accuracy(model, holdout, shown)) is not None:
            accuracies.append(Accuracy(family, accuracy.auc, accuracy.users))
    return accuracies


def questions(catalogue: Catalogue, asked: pa.Table, exclude_seen: SeenPolicy, max_events: int) -> Holdout:
    """QUESTIONS by the positions of a catalogue.

    Left out are items that it does not know or that may not be shown, as answers the user's seen ones too, and then
    the users who chose nothing else. Histories hold positions; targets and masks, places among the visible items.
    """
    users, types = asked[c.USER].to_numpy(), asked[c.TYPE].to_numpy()
    ids = asked[c.ITEM_ID].combine_chunks().dictionary_encode()
    known = [catalogue.position_of.get(id_, -1) for id_ in ids.dictionary.to_pylist()]
    items = np.array(known, dtype=np.int32)[ids.indices.to_numpy()]
    chosen = asked[c.CHOSEN].to_numpy(zero_copy_only=False)
    place_of = np.where(catalogue.visible, np.cumsum(catalogue.visible) - 1, -1)
    places = np.where(items >= 0, place_of[items], -1)
    n_users, n_shown = int(users.max(initial=-1)) + 1, int(catalogue.visible.sum())
    past = ~chosen & (items >= 0)
    histories = build_histories(
        users[past].astype(np.int64),
        items[past],
        types[past],
        asked[c.WEIGHT].to_numpy()[past],
        asked[c.TIMESTAMP].to_numpy()[past],
        n_users,
        max_events,
    )
    seen = ~chosen & (places >= 0) & makes_seen(types, exclude_seen)
    masked = _matrix(users[seen], places[seen], (n_users, n_shown))
    answers = chosen & (places >= 0)
    targets = _matrix(users[answers], places[answers], (n_users, n_shown))
    targets = (targets.astype(np.int8) - targets.multiply(masked).astype(np.int8)).astype(bool)
    targets.eliminate_zeros()
    rows = np.flatnonzero(np.diff(targets.indptr))
    everyone = Holdout(np.arange(n_users, dtype=np.int32), histories, targets, masked)
    return everyone.take(rows)


def _matrix(
    rows: npt.NDArray[np.integer[Any]], columns: npt.NDArray[np.integer[Any]], shape: tuple[int, int]
) -> sp.csr_array:
    return sp.csr_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=shape, dtype=bool)
