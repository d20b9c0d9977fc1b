"""Whether a hybrid is an ensemble or one of its base models, by their NDCG@10 on the same held-out users.

The difference between the best ensemble and the best base model is paired by user, with its standard error over users:

1. The ensemble is chosen where it is better.
2. The base model is chosen where the ensemble is not better. But where the ensemble is worse by no more than a standard
   error, and the best base model leads the next one by no more than a standard error, it is unknown which of them is
   best, and the ensemble is chosen because it needs no such guess. That happens where users are few.

The best of several alternatives looks better than it is. Therefore both sides are chosen again for each fold of users,
by the other folds, and the difference is measured on that fold.

Much popularity makes the lists of all users alike. So an ensemble whose lists have fewer than `MIN_DIVERSITY_SHARE` of
the items in those of the best base model is no alternative, unless it is better than all others by `DIVERSITY_WORTH`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluation.intervals import Estimate, paired_difference
from training.models.contract import Doubles

MIN_DIVERSITY_SHARE = 0.8
"""Distinct items in the lists of an ensemble, as a share of those in the lists of the best base model."""
DIVERSITY_WORTH = 0.05
"""Share of the NDCG that lists of such diversity may cost."""


@dataclass(frozen=True)
class RankerOption:
    """One choice of weights, with its figures on users that were held out from them."""

    weights: Doubles  # [n_base_models], sum 1
    popularity_weight: float
    query_ndcg: Doubles  # [q]
    ndcg: float  # mean over users
    diversity: int


@dataclass(frozen=True)
class HeldOut:
    """The queries that options are measured on."""

    user: npt.NDArray[np.int64]  # [q] 0 to n - 1
    fold: npt.NDArray[np.int64]  # [q] the same for all queries of a user
    query_weights: Doubles  # [q] sum 1 for each user

    def by_user(self, query_ndcg: Doubles) -> Doubles:
        """The mean of each user's queries, float64 [n]."""
        return np.bincount(self.user, query_ndcg * self.query_weights).astype(np.float64)

    def mean(self, option: RankerOption, rows: npt.NDArray[np.bool_]) -> float:
        """NDCG of an option on the queries under the mask, bool [q]."""
        return float(np.average(option.query_ndcg[rows], weights=self.query_weights[rows]))


@dataclass(frozen=True)
class HybridChoice:
    """What a hybrid is."""

    option: RankerOption
    gain: Estimate  # in NDCG of the best ensemble over the best base model
    reason: str  # which components it has and why, in words


def choose_components(
    families: Sequence[str],
    singles: Sequence[RankerOption],
    ensembles: Sequence[RankerOption],
    queries: HeldOut,
    tolerance: float,
) -> HybridChoice:
    """The best ensemble or the best base model, by the rule of this module.

    Args:
        families: of the base models.
        singles: each base model alone, in the order of `families`.
        ensembles: may be empty.
        queries: at least two folds.
        tolerance: share of the best ensemble's NDCG that may be lost for more diverse lists.
    """
    everyone = np.ones(len(queries.user), dtype=bool)
    order = sorted(range(len(singles)), key=lambda place: -singles[place].ndcg)
    best, family = singles[order[0]], families[order[0]]
    if not ensembles:
        return HybridChoice(best, Estimate(mean=0.0), f"{family} alone: no weights of an ensemble could be learned")
    ensembles = _diverse(ensembles, best)
    ensemble = _best(ensembles, queries, everyone, tolerance)
    ensemble_ndcg, single_ndcg = np.empty(len(everyone)), np.empty(len(everyone))
    for held in np.unique(queries.fold):
        rows = queries.fold == held
        ensemble_ndcg[rows] = _best(ensembles, queries, ~rows, tolerance).query_ndcg[rows]
        single_ndcg[rows] = max(singles, key=lambda single: queries.mean(single, ~rows)).query_ndcg[rows]
    pair = queries.by_user(ensemble_ndcg), queries.by_user(single_ndcg)
    gain, error = paired_difference(*pair), _standard_error(pair[0] - pair[1])
    says = f"ensemble {_relative(gain, best.ndcg)} of its NDCG@10 on {len(pair[0]):,} users"
    if gain.mean > 0:
        return HybridChoice(ensemble, gain, f"{_names(families, ensemble)}: better than {family} alone, {says}")
    if gain.mean >= -error and len(order) > 1:
        lead = queries.by_user(best.query_ndcg - singles[order[1]].query_ndcg)
        if lead.mean() <= _standard_error(lead):
            reason = f"neither better nor worse than {family} alone, which is no better than {families[order[1]]}"
            return HybridChoice(ensemble, gain, f"{_names(families, ensemble)}: {reason}; {says}")
    return HybridChoice(best, gain, f"{family} alone: {says}")


def _diverse(ensembles: Sequence[RankerOption], best: RankerOption) -> Sequence[RankerOption]:
    """The ensembles whose lists are about as diverse as those of the best base model; all where that costs too much."""
    diverse = [option for option in ensembles if option.diversity >= MIN_DIVERSITY_SHARE * best.diversity]
    reached = max(option.ndcg for option in (*diverse, best))
    return diverse if diverse and reached >= (1 - DIVERSITY_WORTH) * max(each.ndcg for each in ensembles) else ensembles


def _best(
    options: Sequence[RankerOption], queries: HeldOut, rows: npt.NDArray[np.bool_], tolerance: float
) -> RankerOption:
    """The option with the most diverse lists among those within `tolerance` of the best NDCG on these queries.

    Of two equally accurate rankings, the one whose lists differ more between users is the more personal.
    """
    figures = [queries.mean(option, rows) for option in options]
    enough = max(figures) * (1 - tolerance)
    near = [(option.diversity, ndcg, -place) for place, (option, ndcg) in enumerate(zip(options, figures, strict=True))]
    return options[-max(entry for entry in near if entry[1] >= enough)[2]]


def _standard_error(differences: Doubles) -> float:
    """Of the mean of these differences, one a user; infinite where there is only one."""
    n = len(differences)
    return float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf


def _relative(gain: Estimate, ndcg: float) -> str:
    """A difference as a share of an NDCG, such as `-0.3 % [-2.0, +1.0]`."""
    unit = 100 / ndcg if ndcg else 0.0
    low, high = (unit * (bound if bound is not None else gain.mean) for bound in (gain.low, gain.high))
    return f"{unit * gain.mean:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _names(families: Sequence[str], option: RankerOption) -> str:
    """The components of an option, the heaviest first."""
    used: list[int] = sorted(np.flatnonzero(option.weights).tolist(), key=lambda place: -option.weights[place])
    names = [families[place] for place in used] + (["recent popularity"] if option.popularity_weight else [])
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
