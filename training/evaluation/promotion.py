"""The rule that moves the alias `champion`: figures of one window in, a decision with its reason out."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field

from training.evaluation.report import RANDOM, EvaluationReport

DEFAULT = "default"


class _Policy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Floor(_Policy):
    """The challenger must not be shown to fall short of `factor` times what `model` reaches; no model, no floor.

    Shown means by the 95 % interval of its metric: windows of a hundred users move a mean by a sixth, and a
    rule on means would drop a family from the API by chance.
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
        return self.floors.get(family, self.floors.get(DEFAULT, Floor()))


@dataclass(frozen=True)
class Decision:
    promote: bool
    reason: str  # a sentence for a person, with the figures


def load_policy() -> PromotionPolicy:
    return PromotionPolicy.model_validate(yaml.safe_load((files("configs") / "promotion.yaml").read_text()))


def decide(
    challenger: EvaluationReport,
    champion: EvaluationReport | None,
    baselines: Mapping[str, EvaluationReport],
    floor: Floor,
    policy: PromotionPolicy,
) -> Decision:
    """Whether the challenger becomes champion.

    Args:
        challenger: its report.
        champion: what the champion reaches on the same window; None where there is none, or none comparable.
        baselines: reports of the baselines on the same window, by family.
        floor: of the challenger's family.
        policy: metric and segments.

    Raises:
        ValueError: a report is of another window, whose figures would not compare.
        KeyError: the floor names a baseline that was not given.
    """
    for other in [*baselines.values(), *([champion] if champion else [])]:
        if other.split_hash != challenger.split_hash:
            raise ValueError(f"reports of the windows {challenger.split_hash} and {other.split_hash} do not compare")
    if floor.model is None and champion is None:
        return Decision(True, "the first version of a baseline, which has no floor")
    segment = next((s for s in policy.segments if challenger.n_users(s) >= policy.min_users), None)
    estimate = challenger.estimate(policy.metric, segment) if segment else None
    if segment is None or estimate is None:
        measured = max((challenger.n_users(s) for s in policy.segments), default=0)
        if floor.model is None:
            return Decision(True, f"a baseline on newer data; only {measured} users in the window, too few to compare")
        return Decision(
            False, f"only {measured} users in the test window, {policy.min_users} are needed to tell models apart"
        )
    figure, reached = f"{policy.metric} of {segment}", estimate.mean
    at_best = reached if estimate.high is None else estimate.high
    passed = "no floor"
    if floor.model is not None:
        source = challenger if floor.model == RANDOM else baselines[floor.model]
        base = source.metric(policy.metric, segment, floor.model)
        if base is None:
            raise ValueError(f"{floor.model} has no {figure} on this window")
        passed = f"the floor {floor.factor * base:.4f} ({floor.factor:g} x {floor.model})"
        if not at_best > floor.factor * base:
            return Decision(False, f"{figure} is {reached:.4f}, at best {at_best:.4f}, not above {passed}")
        passed = f"above {passed}" if reached > floor.factor * base else f"not shown to be below {passed}"
    if champion is not None:
        held = champion.metric(policy.metric, segment)
        if held is not None and reached < held:
            return Decision(False, f"{figure} is {reached:.4f}, the champion reaches {held:.4f} on the same window")
    rival = "no champion to compare" if champion is None else "not worse than the champion on the same window"
    return Decision(True, f"{figure} is {reached:.4f}; {passed}; {rival}")
