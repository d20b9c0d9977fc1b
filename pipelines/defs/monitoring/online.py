"""How the release does where it serves: answers that users follow, and accuracy against what the training promised."""

import math
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from feature_store import analytics_sources
from pipelines.resources import Installation
from training.evaluation.drift import SURE, DailyMeasure, falling_share

FOLLOWED_DROP = 0.3
"""A fall of the share of followed answers that matters."""
ACCURACY_DAYS = 7
"""Days up to the newest one whose users are pooled."""
ACCURACY_MARGIN = 0.05
"""How much lower an online AUC may be than the one at training: users and items of the two differ."""


@dataclass(frozen=True)
class OnlineAgainstOffline:
    """The AUC of a family of the newest release on users whom it served, beside its AUC at training."""

    family: str
    auc: float  # mean over the users of the days
    low: float  # interval of 99 %
    high: float
    users: int
    offline: float

    @property
    def is_worse(self) -> bool:
        """Whether the online AUC is shown to be lower by more than the margin."""
        return self.high < self.offline - ACCURACY_MARGIN

    @property
    def text(self) -> str:
        """The figures in words."""
        return (
            f"online AUC {self.auc:.3f} ({self.low:.3f} to {self.high:.3f}) of {self.users:,} users, "
            f"{self.offline:.3f} at training"
        )


def followed_answers(installation: Installation, tenant_id: str, days: list[date], until: date) -> DailyMeasure | None:
    """The share of each day's answers that users followed; None where no model has answered on these days.

    The day `until` is left out, since its answers are followed for a day more.

    days: the days of all measures, without gaps.
    """
    found = analytics_sources.followed_by_day(installation.database_url(), tenant_id, days[0])
    answers, followed = (np.zeros(len(days), dtype=np.int64) for _ in range(2))
    places = np.array([(day - days[0]).days for day in found["day"].to_pylist()], dtype=np.int64)
    counted = (places < len(days)) & (places < (until - days[0]).days)
    answers[places[counted]] = found["answers"].to_numpy()[counted]
    followed[places[counted]] = found["followed"].to_numpy()[counted]
    return falling_share("followed", followed, answers, FOLLOWED_DROP) if answers.any() else None


def online_accuracy(installation: Installation, tenant_id: str, until: date) -> list[OnlineAgainstOffline]:
    """The families of the newest release that were measured on the last ACCURACY_DAYS days, by name.

    Values in [0, 1] of mean m have a variance of at most m (1 - m) (Bhatia and Davis, 2000), so the interval needs
    no figures of single users, and is rather too wide.
    """
    since = until - timedelta(days=ACCURACY_DAYS - 1)
    found = analytics_sources.newest_release_accuracy(installation.database_url(), tenant_id, since)
    families = np.array(found["family"].to_pylist(), dtype=object)
    auc, users, offline = (found[name].to_numpy() for name in ("auc", "users", "offline"))
    compared = []
    for family in sorted(set(families)):
        rows = (families == family) & (users > 0)
        if n := int(users[rows].sum()):
            mean = float(np.average(auc[rows], weights=users[rows]))
            width = SURE * math.sqrt(mean * (1 - mean) / n)
            interval = max(0.0, mean - width), min(1.0, mean + width)
            compared.append(OnlineAgainstOffline(family, mean, *interval, n, float(offline[rows][0])))
    return compared
