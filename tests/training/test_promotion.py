"""The rule: over the floor, no worse than the champion, on one window, by enough users."""

import pytest
from pydantic import ValidationError

from training.evaluation.promotion import Floor, IncomparableChampion, PromotionPolicy, decide, load_policy
from training.evaluation.report import Estimate, EvaluationReport, SegmentResult

POLICY = PromotionPolicy(metric="ndcg@10", segments=("warm", "all"), min_users=10, floors={})
FLOOR = Floor(model="popularity", factor=1.0)


def report(
    figure: float | None,
    users: int = 50,
    model: str = "collaborative",
    split: str = "w1",
    segment: str = "warm",
    interval: tuple[float | None, float | None] = (None, None),
) -> EvaluationReport:
    rows = [(model, figure), ("random", 0.01)] if figure is not None else []
    return EvaluationReport(
        family=model,
        protocol="p",
        split_hash=split,
        snapshot_id="s",
        seed=0,
        results=[
            SegmentResult(
                model=name,
                segment=segment,
                n_users=users,
                n_targets=users,
                metrics={"ndcg@10": Estimate(mean=v, low=interval[0], high=interval[1])},
            )
            for name, v in rows
        ],
    )


BASE = {"popularity": report(0.2, model="popularity")}


def test_a_first_model_above_the_floor_is_promoted_with_its_figures() -> None:
    decision = decide(report(0.25), None, BASE, FLOOR, POLICY)
    assert decision.promote
    assert "0.2500" in decision.reason and "0.2000" in decision.reason and "no champion" in decision.reason


@pytest.mark.parametrize("figure", [0.2, 0.1])
def test_a_model_that_does_not_beat_the_floor_is_refused(figure: float) -> None:
    decision = decide(report(figure), None, BASE, FLOOR, POLICY)
    assert not decision.promote and "not above the floor" in decision.reason


def test_a_floor_is_missed_only_where_the_whole_interval_lies_below_it() -> None:
    within, below = (report(0.18, interval=(0.12, high)) for high in (0.21, 0.2))
    decision = decide(within, None, BASE, FLOOR, POLICY)
    assert decision.promote and "not shown to be below the floor" in decision.reason
    assert not decide(below, None, BASE, FLOOR, POLICY).promote


def test_a_challenger_must_not_be_worse_than_the_champion() -> None:
    assert decide(report(0.3), report(0.3), BASE, FLOOR, POLICY).promote
    refused = decide(report(0.3), report(0.31), BASE, FLOOR, POLICY)
    assert not refused.promote and "champion reaches 0.3100" in refused.reason


def test_a_champion_that_cannot_be_compared_blocks_the_promotion_and_says_why() -> None:
    lost = IncomparableChampion(version="version 3", reason="its report is gone")
    for floor, baselines, challenger in ((FLOOR, BASE, report(0.9)), (Floor(), {}, report(None))):
        decision = decide(challenger, lost, baselines, floor, POLICY)
        assert decision.blocked and not decision.promote
        assert "version 3" in decision.reason and "its report is gone" in decision.reason
        assert "python -m pipelines promote" in decision.reason


def test_a_champion_without_the_figure_that_decides_blocks_the_promotion() -> None:
    decision = decide(report(0.9), report(None), BASE, FLOOR, POLICY)
    assert decision.blocked and not decision.promote and "has no ndcg@10 of warm" in decision.reason


def test_the_floor_holds_for_a_challenger_that_beats_its_champion_too() -> None:
    assert not decide(report(0.19), report(0.1), BASE, FLOOR, POLICY).promote


def test_chance_can_be_the_floor() -> None:
    floor = Floor(model="random", factor=2.0)
    assert decide(report(0.021), None, {}, floor, POLICY).promote
    assert not decide(report(0.02), None, {}, floor, POLICY).promote


def test_a_baseline_has_no_floor_but_meets_its_champion() -> None:
    assert decide(report(0.0), None, {}, Floor(), POLICY).promote
    assert not decide(report(0.1), report(0.2), {}, Floor(), POLICY).promote


def test_too_few_users_tell_nothing() -> None:
    decision = decide(report(0.9, users=9), None, BASE, FLOOR, POLICY)
    assert not decision.promote and "only 9 users" in decision.reason
    assert not decide(report(None), None, BASE, FLOOR, POLICY).promote


def test_without_warm_users_everybody_decides() -> None:
    base = {"popularity": report(0.2, model="popularity", segment="all")}
    assert "of all is" in decide(report(0.3, segment="all"), None, base, FLOOR, POLICY).reason


def test_figures_of_different_windows_are_never_compared() -> None:
    with pytest.raises(ValueError, match="do not compare"):
        decide(report(0.3), report(0.2, split="w2"), BASE, FLOOR, POLICY)
    with pytest.raises(ValueError, match="do not compare"):
        decide(report(0.3, split="w2"), None, BASE, FLOOR, POLICY)


def test_the_shipped_policy_gives_every_family_a_floor_by_name_or_by_default() -> None:
    policy = load_policy()
    assert policy.floor("popularity").model is None
    assert policy.floor("content-based").model == "random"
    assert policy.floor("a plug-in") == policy.floor("collaborative") == Floor(model="popularity", factor=1.0)


def test_a_policy_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError):
        Floor.model_validate({"model": "popularity", "faktor": 2})
