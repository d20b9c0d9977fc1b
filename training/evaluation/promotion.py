"""The rule that decides whether a challenger becomes champion. It compares reports of one window.

A family whose champion cannot be compared keeps that champion until a person overrides the rule. Only the first
champion of a family is promoted without a comparison.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field

from training.evaluation.intervals import Estimate
from training.evaluation.report import RANDOM, EvaluationReport

DEFAULT = "default"


class _Policy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Floor(_Policy):
    """A challenger is refused where it is shown to reach less than `factor` times what `model` reaches.

    It is shown where the 95 % interval of the challenger's metric ends at or below the floor. A rule on means would
    drop a family from the API by chance, because a mean over a hundred users varies by a sixth. Without a model there
    is no floor.
    """

    model: str | None = Field(default=None, description="a baseline's family, or `random` for the expected figure")
    factor: float = Field(default=1.0, gt=0)


class PromotionPolicy(_Policy):
    """`configs/promotion.yaml`."""

    metric: str
    segments: tuple[str, ...] = Field(min_length=1, description="the first with enough users decides")
    min_users: int = Field(ge=1)
    floors: dict[str, Floor]

    def floor(self, family: str) -> Floor:
        """The floor of a family; that of `default` where the family has none of its own."""
        return self.floors.get(family, self.floors.get(DEFAULT, Floor()))


class IncomparableChampion(_Policy):
    """A champion that exists and that cannot be measured on the challenger's window."""

    version: str  # as a person finds it in the registry
    reason: str


@dataclass(frozen=True)
class Decision:
    """The outcome of the promotion rule."""

    promote: bool
    reason: str  # a sentence for a person, with the figures
    blocked: bool = False
    """The rule cannot be applied, because the champion cannot be compared. Only a person can promote past it."""


def load_policy() -> PromotionPolicy:
    """The policy in `configs/promotion.yaml`. Raises ValidationError where it is not valid."""
    return PromotionPolicy.model_validate(yaml.safe_load((files("configs") / "promotion.yaml").read_text()))


def decide(
    challenger: EvaluationReport,
    champion: EvaluationReport | IncomparableChampion | None,
    baselines: Mapping[str, EvaluationReport],
    floor: Floor,
    policy: PromotionPolicy,
) -> Decision:
    """Whether the challenger becomes champion.

    Args:
        challenger: its report.
        champion: what the champion reaches on the same window; None where the family never had one.
        baselines: reports of the baselines on the same window, by family.
        floor: of the challenger's family.
        policy: metric and segments.

    Raises:
        ValueError: a report is of another window, so its figures cannot be compared.
        KeyError: the floor names a baseline that was not given.
    """
    if isinstance(champion, IncomparableChampion):
        return _blocked(f"the champion, {champion.version}, cannot be compared: {champion.reason}")
    for other in [*baselines.values(), *([champion] if champion else [])]:
        if other.split_hash != challenger.split_hash:
            raise ValueError(f"reports of the windows {challenger.split_hash} and {other.split_hash} do not compare")
    if floor.model is None and champion is None:
        return Decision(True, "the first version of a baseline, which has no floor")
    segment = next((s for s in policy.segments if challenger.n_users(s) >= policy.min_users), None)
    estimate = challenger.estimate(policy.metric, segment) if segment else None
    if segment is None or estimate is None:
        return _too_few_users(challenger, floor, policy)
    above, passed = _compare_with_floor(challenger, estimate, baselines, floor, policy.metric, segment)
    if not above:
        return Decision(False, passed)
    return _compare_with_champion(estimate, champion, policy.metric, segment, passed)


def _too_few_users(challenger: EvaluationReport, floor: Floor, policy: PromotionPolicy) -> Decision:
    """Only a baseline is renewed where the window cannot tell models apart."""
    evaluated = max((challenger.n_users(s) for s in policy.segments), default=0)
    if floor.model is None:
        return Decision(True, f"a baseline on newer data; only {evaluated} users in the window, too few to compare")
    return Decision(
        False, f"only {evaluated} users in the test window, {policy.min_users} are needed to tell models apart"
    )


def _compare_with_floor(
    challenger: EvaluationReport,
    estimate: Estimate,
    baselines: Mapping[str, EvaluationReport],
    floor: Floor,
    metric: str,
    segment: str,
) -> tuple[bool, str]:
    """Whether the challenger passes the floor, and the sentence about it."""
    if floor.model is None:
        return True, "no floor"
    figure, reached = f"{metric} of {segment}", estimate.mean
    base = (challenger if floor.model == RANDOM else baselines[floor.model]).metric(metric, segment, floor.model)
    if base is None:
        raise ValueError(f"{floor.model} has no {figure} on this window")
    least = floor.factor * base
    words = f"the floor {least:.4f} ({floor.factor:g} x {floor.model})"
    at_best = reached if estimate.high is None else estimate.high
    if not at_best > least:
        return False, f"{figure} is {reached:.4f}, at best {at_best:.4f}, not above {words}"
    return True, f"above {words}" if reached > least else f"not shown to be below {words}"


def _compare_with_champion(
    estimate: Estimate, champion: EvaluationReport | None, metric: str, segment: str, passed: str
) -> Decision:
    figure, reached = f"{metric} of {segment}", estimate.mean
    if champion is None:
        return Decision(True, f"{figure} is {reached:.4f}; {passed}; no champion to compare")
    held = champion.metric(metric, segment)
    if held is None:
        return _blocked(f"the champion has no {figure} on the same window")
    if reached < held:
        return Decision(False, f"{figure} is {reached:.4f}, the champion reaches {held:.4f} on the same window")
    return Decision(True, f"{figure} is {reached:.4f}; {passed}; not worse than the champion on the same window")


def _blocked(reason: str) -> Decision:
    return Decision(False, f"blocked: {reason}; a person decides with `python -m pipelines promote`", blocked=True)
