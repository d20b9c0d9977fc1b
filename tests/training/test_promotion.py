"""The rule: over the floor, no guard rail broken, no worse than the champion in pairs, by enough users."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from configs.tenant_pipeline import FamilyFloor, PromotionRails, TenantPromotion
from tests.training.catalogue import build_dataset
from training.data.splits import temporal_split
from training.evaluation.champion_comparison import ChampionComparison, PairedFigure, ServingCost, paired_figures
from training.evaluation.promotion import (
    Decision,
    Floor,
    IncomparableChampion,
    PromotionPolicy,
    PromotionVerdict,
    decide,
    held,
    load_policy,
)
from training.evaluation.promotion_report import PromotionReport
from training.evaluation.report import Estimate, EvaluationReport, SegmentResult
from training.evaluation.serving_cost import serving_cost
from training.evaluation.user_values import UserValues
from training.models.contract import RuntimeOptions
from training.train import evaluate_family

POLICY = PromotionPolicy(metric="ndcg@10", segments=("warm", "all"), min_users=10, floors={})
FLOOR = Floor(model="popularity", factor=1.0)


def report(
    figure: float | None,
    users: int = 50,
    model: str = "collaborative",
    split: str = "w1",
    segment: str = "warm",
    interval: tuple[float | None, float | None] = (None, None),
    coverage: float = 0.4,
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
                metrics={
                    "ndcg@10": Estimate(mean=v, low=interval[0], high=interval[1]),
                    "coverage@10": Estimate(mean=coverage),
                },
            )
            for name, v in rows
        ],
    )


def against_champion(difference: float, error: float, users: int, champion: float) -> PairedFigure:
    """A paired figure with the interval of a normal distribution."""
    return PairedFigure(
        n_users=users,
        challenger=champion + difference,
        champion=champion,
        difference=Estimate(mean=difference, low=difference - 1.96 * error, high=difference + 1.96 * error),
        standard_error=error,
    )


def compared(
    difference: float,
    error: float = 0.001,
    users: int = 50,
    held_figure: float = 0.3,
    segment: str = "warm",
    split: str = "w1",
    coverage: float = 0.4,
    same: bool = False,
) -> ChampionComparison:
    """A champion at `held_figure`, and a challenger who differs by this much with this standard error."""
    figure = against_champion(difference, error, users, held_figure)
    return ChampionComparison(
        version="version 1",
        report=report(held_figure, users, split=split, coverage=coverage),
        same_configuration=same,
        figures={segment: {"ndcg@10": figure}},
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


def test_a_challenger_may_be_a_little_below_but_not_shown_worse_nor_far_below() -> None:
    def verdict(difference: float, error: float) -> tuple[PromotionVerdict, bool]:
        decision = decide(report(0.3 + difference), compared(difference, error), BASE, FLOOR, POLICY)
        return decision.verdict, decision.promote

    assert verdict(0.0, 0.003) == (PromotionVerdict.PASSED, True)
    assert verdict(-0.008, 0.0075) == (PromotionVerdict.PASSED, True)  # 2.7 % below, within chance
    assert verdict(-0.010, 0.0075) == (PromotionVerdict.REFUSED, False)  # 3.3 % below
    assert verdict(-0.005, 0.002) == (PromotionVerdict.REFUSED, False)  # 1.7 % below, and shown
    assert verdict(-0.010, 0.02) == (PromotionVerdict.UNDECIDED, True)  # the error is 6.7 %
    assert verdict(-0.045, 0.02) == (PromotionVerdict.REFUSED, False)  # shown worse however few the users
    keep = POLICY.model_copy(update={"undecided": "keep"})
    decision = decide(report(0.4), compared(0.1, 0.06), BASE, FLOOR, keep)
    assert (decision.verdict, decision.promote) == (PromotionVerdict.UNDECIDED, False)
    assert "the champion stays, as the settings say" in decision.reason
    assert "+0.1000 (-0.0176 to +0.2176)" in decision.reason


def test_the_champions_own_configuration_is_renewed_on_newer_data() -> None:
    assert decide(report(0.3), compared(0.0, 0.0, same=True), BASE, FLOOR, POLICY).verdict == PromotionVerdict.PASSED


def test_each_guard_rail_refuses_a_better_challenger() -> None:
    rails = PromotionRails(max_query_ms=5, max_model_mb=10)
    policy = POLICY.model_copy(update={"rails": rails})
    cheap = ServingCost(query_ms=4, model_mb=9)
    better = compared(0.1)

    def broken(champion: ChampionComparison, cost: ServingCost = cheap, coverage: float = 0.4) -> list[str]:
        decision = decide(report(0.4, coverage=coverage), champion, BASE, FLOOR, policy, cost)
        names = [rail.name for rail in decision.rails if not rail.passed]
        assert decision.promote == (names == [])
        return names

    assert broken(better) == []
    assert broken(better, ServingCost(query_ms=5.1, model_mb=10.1)) == ["query_ms", "model_mb"]
    assert broken(better, coverage=0.19) == ["coverage"]
    for segment in ("cold_users", "cold_items"):
        for difference, error, names in ((-0.16, 0.01, [segment]), (-0.14, 0.01, []), (-0.16, 0.1, [])):
            cold = compared(difference, error, segment=segment).figures
            assert broken(better.model_copy(update={"figures": {**better.figures, **cold}})) == names
        few = compared(-0.3, 0.01, users=9, segment=segment).figures
        assert broken(better.model_copy(update={"figures": {**better.figures, **few}})) == []
    first = decide(report(0.4), None, BASE, FLOOR, policy, ServingCost(query_ms=6, model_mb=1))
    assert not first.promote and "6 ms for one query, at most 5 are allowed" in first.reason


def test_a_held_family_keeps_its_champion_and_says_who_holds_it() -> None:
    decision = held(decide(report(0.4), compared(0.1), BASE, FLOOR, POLICY), "ann", "2026-11-28T10:00:00+00:00")
    assert not decision.promote and decision.verdict == PromotionVerdict.HELD
    assert decision.reason.startswith("held by ann since 2026-11-28T10:00:00+00:00; without that: passed")


def test_a_tenants_settings_replace_thresholds_and_floors() -> None:
    settings = TenantPromotion(
        metric="recall@10", max_drop=0.1, undecided="keep", floors={"hybrid": FamilyFloor(model="item-knn")}
    )
    policy = load_policy().with_settings(settings)
    assert (policy.metric, policy.max_drop, policy.undecided) == ("recall@10", 0.1, "keep")
    assert policy.floor("hybrid") == Floor(model="item-knn")
    assert policy.floor("content-based") == load_policy().floor("content-based")
    assert load_policy().with_settings(TenantPromotion()) == load_policy()


def users(split: str = "w1", **segments: list[float]) -> UserValues:
    return UserValues(split, {name: {"ndcg@10": np.array(values)} for name, values in segments.items()})


def test_pairs_are_of_the_same_users_and_a_segment_leaves_others_out(tmp_path: Path) -> None:
    nan = float("nan")
    one = users(all=[0.5, 0.0, 1.0, 0.25], cold_users=[nan, nan, 1.0, 0.25], new=[nan, 1.0, nan, nan])
    other = users(all=[0.25, 0.0, 0.5, 0.5], cold_users=[nan, nan, 0.5, 0.5])
    one.save(tmp_path / "one.npz")
    figures = paired_figures(UserValues.load(tmp_path / "one.npz"), other)
    assert list(figures) == ["all", "cold_users"]
    cold = figures["cold_users"]["ndcg@10"]
    assert (cold.n_users, cold.challenger, cold.champion) == (2, 0.625, 0.5)
    assert cold.difference.mean == 0.125 and cold.standard_error == pytest.approx(0.375)
    with pytest.raises(ValueError, match="not the same"):
        paired_figures(one, users("w2", all=[0.0] * 4))


@pytest.mark.fit
def test_stored_values_have_the_means_of_the_report_and_a_model_its_cost(tmp_path: Path) -> None:
    split = temporal_split(build_dataset(), "none")
    found = evaluate_family("popularity", split, options=RuntimeOptions(threads=1))
    values = UserValues.of(split, found.rankings)
    reported = {each.segment: each.metrics for each in found.report.results if each.model == "popularity"}
    assert set(values.by_segment) == set(reported) and {"all", "warm"} <= set(reported)
    for segment, columns in values.by_segment.items():
        for metric, column in columns.items():
            assert np.nanmean(column) == pytest.approx(reported[segment][metric].mean, abs=1e-6)
    found.evaluated.save(tmp_path)
    cost = serving_cost(found.evaluated, split.test, [tmp_path])
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert cost is not None and cost.query_ms > 0 and cost.model_mb == size / 1e6
    assert serving_cost(found.evaluated, split.test.take(np.array([], dtype=np.int64)), [tmp_path]) is None


def two_seeds() -> np.ndarray:
    """NDCG@10 of each user of MovieLens 100k under two seeds of deep-learning, float64 [2, n_users].

    The file has a line per seed and a digit per user: the rank of the left-out item, 0 where it is below ten.
    """
    lines = (Path(__file__).parents[1] / "fixtures" / "ranks_of_two_seeds.txt").read_text().split()
    ranks = np.array([[int(digit, 16) for digit in line] for line in lines])
    return np.where(ranks > 0, 1 / np.log2(ranks + 1.0, where=ranks > 0, out=np.ones(ranks.shape)), 0.0)


def passing(worse: float, relative_error: float, policy: PromotionPolicy) -> dict[PromotionVerdict, float]:
    """How often each verdict comes, with users drawn until the standard error is this share of the mean."""
    rng = np.random.default_rng(7)
    seeds = two_seeds()
    one, other = np.concatenate([seeds, seeds[::-1]], axis=1)  # each user in both orders: equal in the mean
    one = (1 - worse) * one
    spread = (one - other).std() / other.mean()
    n_users = round((spread / relative_error) ** 2)
    counts = rng.multinomial(n_users, np.full(len(one), 1 / len(one)), size=600)
    means, champions = counts @ one / n_users, counts @ other / n_users
    errors = np.sqrt((counts @ (one - other) ** 2 / n_users - (means - champions) ** 2) / n_users)
    found: dict[PromotionVerdict, float] = dict.fromkeys(PromotionVerdict, 0.0)
    challenger, against = report(1.0), compared(0.0)
    for mean, champion, error in zip(means.tolist(), champions.tolist(), errors.tolist(), strict=True):
        figure = against_champion(mean - champion, error, n_users, champion)
        paired = against.model_copy(update={"figures": {"warm": {"ndcg@10": figure}}})
        outcome = decide(challenger, paired, BASE, FLOOR, policy)
        found[outcome.verdict] += outcome.promote / len(means)
    return found


def test_the_interval_of_the_bootstrap_is_that_of_its_standard_error() -> None:
    one, other = (users(all=list(values)) for values in two_seeds())
    found = paired_figures(one, other)["all"]["ndcg@10"]
    assert found.difference.low is not None and found.difference.high is not None and found.standard_error is not None
    assert found.difference.high - found.difference.low == pytest.approx(2 * 1.96 * found.standard_error, rel=0.1)


@pytest.mark.parametrize("undecided", ["promote", "keep"])
def test_with_users_enough_an_equal_challenger_passes_and_one_that_is_a_tenth_worse_does_not(undecided: str) -> None:
    policy = POLICY.model_copy(update={"undecided": undecided})
    for relative_error in (0.025, 0.0125):
        assert sum(passing(0.0, relative_error, policy).values()) >= 0.85
        assert sum(passing(0.1, relative_error, policy).values()) <= 0.05


def test_with_few_users_nothing_is_decided_and_only_what_is_shown_worse_is_refused() -> None:
    equal = passing(0.0, 0.06, POLICY)
    assert equal[PromotionVerdict.UNDECIDED] >= 0.95 and equal[PromotionVerdict.PASSED] == 0
    assert sum(passing(0.0, 0.06, POLICY.model_copy(update={"undecided": "keep"})).values()) == 0


def test_the_report_names_window_intervals_rails_and_verdict() -> None:
    decision = decide(report(0.33), compared(0.03), BASE, FLOOR, POLICY, ServingCost(query_ms=2, model_mb=3))
    found = PromotionReport.of(
        decision, "2", report(0.33), compared(0.03), POLICY, ServingCost(query_ms=2, model_mb=3), "2026-11-28T10:00:00Z"
    )
    assert PromotionReport.model_validate_json(found.model_dump_json()) == found
    text = found.as_text()
    for words in ("version 2: passed", "w1", "| warm | ndcg@10 | 50 | 0.33 | 0.3 | 0.03 |", "- coverage holds", "3 MB"):
        assert words in text, text
    plot = found.plot()
    assert plot is not None and len(plot.axes) == 1
    first = PromotionReport.of(Decision(True, "ok", PromotionVerdict.PASSED), "1", report(0.3), None, POLICY, None, "")
    assert first.plot() is None and "no champion" in first.as_text()


def test_a_champion_that_cannot_be_compared_blocks_the_promotion_and_says_why() -> None:
    lost = IncomparableChampion(version="version 3", reason="its report is gone")
    for floor, baselines, challenger in ((FLOOR, BASE, report(0.9)), (Floor(), {}, report(None))):
        decision = decide(challenger, lost, baselines, floor, POLICY)
        assert decision.blocked and not decision.promote
        assert "version 3" in decision.reason and "its report is gone" in decision.reason
        assert "python -m pipelines promote" in decision.reason


def test_a_champion_without_the_figure_that_decides_blocks_the_promotion() -> None:
    decision = decide(report(0.9), compared(0.1, segment="cold_users"), BASE, FLOOR, POLICY)
    assert decision.blocked and not decision.promote and "has no ndcg@10 of warm" in decision.reason


def test_the_floor_holds_for_a_challenger_that_beats_its_champion_too() -> None:
    assert not decide(report(0.19), compared(0.09, held_figure=0.1), BASE, FLOOR, POLICY).promote


def test_chance_can_be_the_floor() -> None:
    floor = Floor(model="random", factor=2.0)
    assert decide(report(0.021), None, {}, floor, POLICY).promote
    assert not decide(report(0.02), None, {}, floor, POLICY).promote


def test_a_baseline_has_no_floor_but_meets_its_champion() -> None:
    assert decide(report(0.0), None, {}, Floor(), POLICY).promote
    assert not decide(report(0.1), compared(-0.2), {}, Floor(), POLICY).promote


def test_too_few_users_tell_nothing() -> None:
    decision = decide(report(0.9, users=9), None, BASE, FLOOR, POLICY)
    assert not decision.promote and "only 9 users" in decision.reason
    assert not decide(report(None), None, BASE, FLOOR, POLICY).promote
    later = decide(report(0.1, users=9), compared(-0.1, users=9), BASE, FLOOR, POLICY)
    assert later.promote and later.verdict == PromotionVerdict.UNDECIDED


def test_without_warm_users_everybody_decides() -> None:
    base = {"popularity": report(0.2, model="popularity", segment="all")}
    assert "of all is" in decide(report(0.3, segment="all"), None, base, FLOOR, POLICY).reason


def test_figures_of_different_windows_are_never_compared() -> None:
    with pytest.raises(ValueError, match="do not compare"):
        decide(report(0.3), compared(0.1, split="w2"), BASE, FLOOR, POLICY)
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
