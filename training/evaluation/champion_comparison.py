"""A challenger and its champion on the same users and window: their differences in pairs, and what a model costs."""

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from training.evaluation.intervals import Estimate, Floats, paired_differences
from training.evaluation.report import EvaluationReport
from training.evaluation.user_values import UserValues

N_RESAMPLES = 1_000


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServingCost(_Record):
    """What a model takes in the model server."""

    query_ms: float  # median of single queries: scoring, masking and cutting a list
    model_mb: float  # the saved model, with the base models that an ensemble serves with


class PairedFigure(_Record):
    """One metric of one segment, of the users whom both models were evaluated on."""

    n_users: int
    challenger: float  # means
    champion: float
    difference: Estimate  # challenger minus champion
    standard_error: float | None  # of the difference; None with fewer than two users

    @property
    def relative_error(self) -> float:
        """The standard error as a share of the champion's mean; infinite where it is not known."""
        if self.standard_error is None:
            return float("inf")
        if self.standard_error == 0:
            return 0.0
        return self.standard_error / self.champion if self.champion else float("inf")

    @property
    def shown_worse(self) -> bool:
        """Whether the 95 % interval of the difference ends below 0."""
        return self.difference.high is not None and self.difference.high < 0

    def below(self, share: float) -> bool:
        """Whether the challenger's mean is more than this share below the champion's."""
        return self.challenger < (1 - share) * self.champion


class ChampionComparison(_Record):
    """What the champion's configuration reaches on the challenger's window, and the differences in pairs."""

    version: str  # as a person finds it in the registry
    report: EvaluationReport
    same_configuration: bool  # the two fits would give the same model, so nothing was fitted again
    figures: dict[str, dict[str, PairedFigure]]  # segment to metric

    def figure(self, metric: str, segment: str) -> PairedFigure | None:
        """The paired figure, or None where no user has the metric under both models."""
        return self.figures.get(segment, {}).get(metric)


def paired_figures(challenger: UserValues, champion: UserValues, seed: int = 0) -> dict[str, dict[str, PairedFigure]]:
    """The differences of all metrics in all segments that both models have, segment to metric.

    Raises ValueError where the values are of different windows, whose users are not the same.
    """
    if challenger.split_hash != champion.split_hash:
        raise ValueError(f"users of the windows {challenger.split_hash} and {champion.split_hash} are not the same")
    return {
        segment: found
        for segment, columns in challenger.by_segment.items()
        if segment in champion.by_segment and (found := _figures(columns, champion.by_segment[segment], seed))
    }


def _figures(one: Mapping[str, Floats], other: Mapping[str, Floats], seed: int) -> dict[str, PairedFigure]:
    in_segment = ~np.isnan(np.column_stack([*one.values(), *other.values()])).all(axis=1)
    pairs = {
        name: (one[name][in_segment], other[name][in_segment])
        for name in one
        if name in other and not np.isnan(one[name] + other[name]).all()
    }
    estimates = paired_differences(list(pairs.values()), N_RESAMPLES, seed) if pairs else []
    return {
        name: paired_figure(challenger, champion, estimate)
        for (name, (challenger, champion)), estimate in zip(pairs.items(), estimates, strict=True)
    }


def paired_figure(challenger: Floats, champion: Floats, difference: Estimate) -> PairedFigure:
    """Means and standard error beside a difference that was bootstrapped. Arrays: float64 [n_users], NaN for none."""
    differences = challenger - champion
    known = ~np.isnan(differences)
    n_users = int(known.sum())
    return PairedFigure(
        n_users=n_users,
        challenger=float(challenger[known].mean()),
        champion=float(champion[known].mean()),
        difference=difference,
        standard_error=float(differences[known].std(ddof=1) / np.sqrt(n_users)) if n_users > 1 else None,
    )
