"""What the asset `drift` does, without Dagster: measure a tenant's days, and say in words what was found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt

from feature_store.daily_counts import DailyCounts, read_daily_counts
from feature_store.lake import TenantLake
from pipelines.defs.monitoring.online import (
    ACCURACY_MARGIN,
    OnlineAgainstOffline,
    followed_answers,
    online_accuracy,
)
from pipelines.defs.monitoring.parity import Parity, measure_parity
from pipelines.resources import Installation
from serving.contracts.releases import BrokenReleaseError
from serving.predictor import Predictor
from serving.release import release_folder, tenant_releases
from training.evaluation.drift import LEAST_EVENTS, LEAST_PAST_DAYS, DailyMeasure
from training.evaluation.drift_samples import DriftThresholds, daily_measures

SHARES = ("unknown_items", "followed")
"""Measures that are shares of events; the others but `volume` are population stability indices."""


_COUNTED = {"activity": "active users", "followed": "answers"}
"""What a measure counts, where these are no events."""


@dataclass(frozen=True)
class Judgement:
    """What one measure says of the newest day that it can be taken of."""

    measure: str
    field: str  # of the metadata, or a family, where the measure is of one
    day: date | None
    value: float | None  # None where it cannot be measured
    limit: float | None  # None where there is no verdict
    drifted: bool
    text: str  # the same in words


@dataclass(frozen=True, eq=False)
class MeasuredDrift:
    """All measures of a tenant's days, and what they say of the newest one."""

    until: date  # the last day that is complete in the lake
    days: list[date]
    counts: DailyCounts
    measures: list[DailyMeasure]
    judgements: list[Judgement]  # of the measures in their order, then of what is no measure of days

    @property
    def drifted(self) -> list[str]:
        """Names of the measures that have drifted on the newest day."""
        return sorted({each.measure for each in self.judgements if each.drifted})


def measure_drift(
    installation: Installation, tenant_id: str, thresholds: DriftThresholds, now: datetime, parity: bool = True
) -> MeasuredDrift | None:
    """Measure the tenant's days up to the last one that the lake holds completely; None where there is none.

    parity: whether the histories of training are compared with those of requests as well.

    Raises FileNotFoundError where the lake has no catalogue.
    """
    lake = TenantLake(installation.paths.lake, tenant_id)
    until = last_complete_day(lake, now)
    counts = read_daily_counts(lake, until)
    if counts is None:
        return None
    norms, without_norms = served_norms(installation, tenant_id, counts.item_ids)
    measures = daily_measures(counts, thresholds, norms)
    if (followed := followed_answers(installation, tenant_id, counts.days, until)) is not None:
        measures.append(followed)
    judgements = [judge(each, counts) for each in measures]
    judgements += [_judge_accuracy(each) for each in online_accuracy(installation, tenant_id, until)]
    if without_norms:
        judgements.append(_undecided("norms", without_norms))
    if parity:
        judgements.append(_judge_parity(measure_parity(installation, tenant_id)))
    return MeasuredDrift(until, counts.days, counts, measures, judgements)


def last_complete_day(lake: TenantLake, now: datetime) -> date:
    """The day (UTC) before that of the last export: an event of a later one may not be in the lake yet."""
    exported_at = lake.cursor().exported_at
    exported = now if exported_at is None else datetime.fromisoformat(exported_at)
    return min(exported.astimezone(UTC), now.astimezone(UTC)).date() - timedelta(days=1)


def served_norms(
    installation: Installation, tenant_id: str, item_ids: Sequence[str]
) -> tuple[npt.NDArray[np.float32] | None, str]:
    """The lengths of the vectors of these items in the newest release, float32 [n_items], and why there are none.

    NaN for an item that is not in the release.
    """
    home = installation.paths.bentoml
    release = next(iter(tenant_releases(home, tenant_id)), None)
    if release is None:
        return None, "there is no release yet"
    try:
        catalogue = Predictor.load(release_folder(home, tenant_id, release), installation.history.max_events).catalogue
    except BrokenReleaseError as error:
        return None, f"release {release} cannot be read: {error}"
    found = [norms for model in catalogue.models.values() if (norms := model.vector_norms()) is not None]
    if not found:
        return None, f"no model of release {release} has vectors of different lengths"
    positions = np.array([catalogue.position_of.get(item_id, -1) for item_id in item_ids], dtype=np.int64)
    return np.where(positions >= 0, found[0][positions], np.nan).astype(np.float32), ""


def judge(measure: DailyMeasure, counts: DailyCounts) -> Judgement:
    """What a measure says of the newest day. A day without events is judged by its volume only."""
    rows = np.arange(len(counts.types)) if measure.name == "volume" else np.flatnonzero(measure.events)
    row = int(rows[-1]) if len(rows) else -1
    day, value, limit = counts.days[row], float(measure.values[row]), float(measure.limits[row])
    events = int(measure.events[row])
    known = None if math.isnan(value) else value
    bound = None if math.isnan(value) or math.isnan(limit) else limit
    return Judgement(
        measure=measure.name,
        field=measure.detail,
        day=day,
        value=known,
        limit=bound,
        drifted=bool(measure.drifted[row]),
        text=_in_words(measure, row, known, bound, events),
    )


def _undecided(measure: str, reason: str) -> Judgement:
    return Judgement(measure, "", None, None, None, False, f"no verdict: {reason}")


def _judge_parity(found: Parity) -> Judgement:
    if found.counts is None:
        return _undecided("parity", found.reason)
    return Judgement("parity", "", None, float(found.counts.differing_users), 0.0, not found.holds, found.text)


def _judge_accuracy(found: OnlineAgainstOffline) -> Judgement:
    limit = found.offline - ACCURACY_MARGIN
    return Judgement("accuracy", found.family, None, found.auc, limit, found.is_worse, found.text)


def _in_words(measure: DailyMeasure, row: int, value: float | None, limit: float | None, events: int) -> str:
    counted = f"{events:,} {_COUNTED.get(measure.name, 'events')}"
    if value is None:
        return f"no verdict: {counted}, or fewer than {LEAST_EVENTS} on the same weekday of the weeks before"
    found = _value_in_words(measure.name, value, counted)
    if limit is None:
        before = int((~np.isnan(measure.values[:row])).sum())
        return f"{found}; no verdict: it takes {LEAST_PAST_DAYS} earlier days with a value, and there are {before}"
    bound = f"{limit:.0%}" if measure.name == "volume" or measure.name in SHARES else f"{limit:.3f}"
    return f"{found}; drift is {'above' if measure.is_upper else 'below'} {bound}"


def _value_in_words(name: str, value: float, counted: str) -> str:
    if name == "volume":
        return f"{counted}, {value:.0%} of those expected by the same weekday of the weeks before"
    if name in SHARES:
        return f"{value:.1%} of {counted}{' were followed' if name == 'followed' else ''}"
    return f"population stability index {value:.3f} of {counted}"
