"""The rule that decides whether a challenger becomes champion. It compares both on the same users of one window.

A family whose champion cannot be compared keeps that champion until a person overrides the rule. Only the first
champion of a family is promoted without a comparison.

The statistics: the mean difference of n users has the standard error s, as a share of the champion's mean. With s of
2.5 % an equal challenger is more than 3 % below by chance in 11.5 % of comparisons (the normal distribution below
-3/2.5), and one that is 10 % worse is less than 3 % below in 0.3 %. With a larger s neither can be promised. The rule
then only refuses what is shown to be worse, and a setting says what follows otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field

from configs.tenant_pipeline import PromotionRails, TenantPromotion
from training.evaluation.champion_comparison import ChampionComparison, PairedFigure, ServingCost
from training.evaluation.guard_rails import RailCheck, check_rails
from training.evaluation.intervals import Estimate
from training.evaluation.report import RANDOM, EvaluationReport

DEFAULT = "default"
_ERROR_TOLERANCE = 1.1
"""A standard error is an estimate itself, and varies by about a tenth with a few hundred users. Without a tolerance
half of the windows that have just enough users would be undecided. At 2.75 % an equal challenger still passes in 86 %
and one that is 10 % worse in 0.5 %."""


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
    """`configs/promotion.yaml`, with the settings of a tenant laid over it."""

    metric: str
    segments: tuple[str, ...] = Field(min_length=1, description="the first with enough users decides")
    min_users: int = Field(ge=1)
    max_drop: float = Field(default=0.03, ge=0, le=1, description="how far the mean may be below the champion's")
    max_relative_error: float = Field(default=0.025, gt=0, description="of the difference; above it is undecided")
    undecided: Literal["promote", "keep"] = "promote"
    rails: PromotionRails = PromotionRails()
    floors: dict[str, Floor]

    def floor(self, family: str) -> Floor:
        """The floor of a family; that of `default` where the family has none of its own."""
        return self.floors.get(family, self.floors.get(DEFAULT, Floor()))

    def with_settings(self, settings: TenantPromotion) -> Self:
        """This policy with what a tenant has set; its floors replace those of the same families."""
        floors = {family: Floor(model=each.model, factor=each.factor) for family, each in settings.floors.items()}
        fields = ("metric", "max_drop", "undecided", "min_users", "max_relative_error", "rails")
        values = {name: getattr(settings, name) for name in fields}
        return self.model_copy(update={**values, "floors": {**self.floors, **floors}})


class IncomparableChampion(_Policy):
    """A champion that exists and that cannot be measured on the challenger's window."""

    version: str  # as a person finds it in the registry
    reason: str


class PromotionVerdict(StrEnum):
    """What the rule found."""

    PASSED = "passed"
    REFUSED = "refused"
    UNDECIDED = "undecided"  # too few users to tell; the policy says what follows
    BLOCKED = "blocked"  # the champion cannot be compared, so only a person can promote past it
    HELD = "held"  # a person chose what serves, and has not lifted that since


_Outcome = tuple[bool, str, PromotionVerdict]
"""The first fields of `Decision`."""


@dataclass(frozen=True)
class Decision:
    """The outcome of the promotion rule."""

    promote: bool
    reason: str  # a sentence for a person, with the figures
    verdict: PromotionVerdict
    segment: str | None = None  # the one that decided; None where no figure did
    rails: tuple[RailCheck, ...] = ()

    @property
    def blocked(self) -> bool:
        return self.verdict is PromotionVerdict.BLOCKED


def load_policy() -> PromotionPolicy:
    """The policy in `configs/promotion.yaml`. Raises ValidationError where it is not valid."""
    return PromotionPolicy.model_validate(yaml.safe_load((files("configs") / "promotion.yaml").read_text()))


def decide(
    challenger: EvaluationReport,
    champion: ChampionComparison | IncomparableChampion | None,
    baselines: Mapping[str, EvaluationReport],
    floor: Floor,
    policy: PromotionPolicy,
    cost: ServingCost | None = None,
) -> Decision:
    """Whether the challenger becomes champion.

    Args:
        challenger: its report.
        champion: the comparison with the champion on the same window; None where the family never had one.
        baselines: reports of the baselines on the same window, by family.
        floor: of the challenger's family.
        policy: metric, segments and thresholds.
        cost: of the challenger in the model server; None where it was not measured, and then no rail limits it.

    Raises:
        ValueError: a report is of another window, so its figures cannot be compared.
        KeyError: the floor names a baseline that was not given.
    """
    if isinstance(champion, IncomparableChampion):
        return Decision(*_blocked(f"the champion, {champion.version}, cannot be compared: {champion.reason}"))
    for other in [*baselines.values(), *([champion.report] if champion else [])]:
        if other.split_hash != challenger.split_hash:
            raise ValueError(f"reports of the windows {challenger.split_hash} and {other.split_hash} do not compare")
    segment = next((s for s in policy.segments if challenger.n_users(s) >= policy.min_users), None)
    estimate = challenger.estimate(policy.metric, segment) if segment else None
    rails = check_rails(challenger, champion, cost, policy.rails, policy.metric, segment or "all", policy.min_users)
    if broken := [rail.words for rail in rails if not rail.passed]:
        outcome = (False, "; ".join(broken), PromotionVerdict.REFUSED)
    elif floor.model is None and champion is None:
        outcome = (True, "the first version of a baseline, which has no floor", PromotionVerdict.PASSED)
    elif segment is None or estimate is None:
        outcome = _too_few_users(challenger, champion, floor, policy)
    else:
        above, passed = _compare_with_floor(challenger, estimate, baselines, floor, policy.metric, segment)
        if above:
            outcome = _compare_with_champion(estimate, champion, policy, segment, passed)
        else:
            outcome = (False, passed, PromotionVerdict.REFUSED)
    return Decision(*outcome, segment, rails)


def held(decision: Decision, by: str, since: str) -> Decision:
    """The decision while a person holds another version as champion: the challenger stays one, whatever the rule says.

    since: RFC 3339.
    """
    reason = f"held by {by} since {since}; without that: {decision.verdict.value}, {decision.reason}"
    return Decision(False, reason, PromotionVerdict.HELD, decision.segment, decision.rails)


def chosen(by: str, since: str, what: str) -> Decision:
    """The decision where a person chose what the challenger is. since: RFC 3339."""
    return Decision(True, f"{what}, chosen by {by} on {since}", PromotionVerdict.HELD)


def _compare_with_champion(
    estimate: Estimate, champion: ChampionComparison | None, policy: PromotionPolicy, segment: str, passed: str
) -> _Outcome:
    """passed: the sentence about the floor."""
    figure = f"{policy.metric} of {segment}"
    if champion is None:
        words = f"{figure} is {estimate.mean:.4f}; {passed}; no champion to compare"
        return True, words, PromotionVerdict.PASSED
    paired = champion.figure(policy.metric, segment)
    if paired is None:
        return _blocked(f"the champion has no {figure} on the same window")
    if champion.same_configuration:
        words = f"{figure} is {estimate.mean:.4f}; {passed}; the champion's configuration on newer data"
        return True, words, PromotionVerdict.PASSED
    promote, words, verdict = _compare_in_pairs(paired, policy)
    return promote, f"{_paired_words(figure, paired)}; {words}; {passed}", verdict


def _compare_in_pairs(paired: PairedFigure, policy: PromotionPolicy) -> _Outcome:
    if paired.shown_worse:
        return False, "shown to be worse", PromotionVerdict.REFUSED
    if paired.relative_error > policy.max_relative_error * _ERROR_TOLERANCE:
        words = (
            f"undecided: {paired.n_users} users give a standard error of {_percent(paired.relative_error)} of the "
            f"champion's mean, above {_percent(policy.max_relative_error)}"
        )
        return _undecided(words, policy)
    if paired.below(policy.max_drop):
        return False, f"more than {_percent(policy.max_drop)} below the champion", PromotionVerdict.REFUSED
    return True, "not worse than the champion on the same window", PromotionVerdict.PASSED


def _too_few_users(
    challenger: EvaluationReport, champion: ChampionComparison | None, floor: Floor, policy: PromotionPolicy
) -> _Outcome:
    """The window cannot tell models apart: a first version waits, and a later one does what the policy says."""
    evaluated = max((challenger.n_users(s) for s in policy.segments), default=0)
    too_few = f"only {evaluated} users in the test window, {policy.min_users} are needed to tell models apart"
    if champion is None:
        return False, too_few, PromotionVerdict.UNDECIDED
    if floor.model is None:
        return True, f"a baseline on newer data; {too_few}", PromotionVerdict.UNDECIDED
    return _undecided(too_few, policy)


def _undecided(words: str, policy: PromotionPolicy) -> _Outcome:
    promote = policy.undecided == "promote"
    follows = "promoted all the same" if promote else "the champion stays"
    return promote, f"{words}; {follows}, as the settings say", PromotionVerdict.UNDECIDED


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


def _paired_words(figure: str, paired: PairedFigure) -> str:
    low, high = paired.difference.low, paired.difference.high
    interval = "" if low is None or high is None else f" ({low:+.4f} to {high:+.4f})"
    return (
        f"{figure} of the same {paired.n_users} users is {paired.challenger:.4f}, the champion reaches "
        f"{paired.champion:.4f}: {paired.difference.mean:+.4f}{interval}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _blocked(reason: str) -> _Outcome:
    words = f"blocked: {reason}; a person decides with `python -m pipelines promote`"
    return False, words, PromotionVerdict.BLOCKED
