"""Guard rails of a promotion: what a challenger must not lose or cost, whatever its main metric says."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from configs.tenant_pipeline import PromotionRails
from training.evaluation.champion_comparison import ChampionComparison, ServingCost
from training.evaluation.report import EvaluationReport
from training.evaluation.segments import COLD_ITEMS, COLD_USERS

COVERAGE = "coverage@10"


class RailCheck(BaseModel):
    """One rail that could be checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    passed: bool
    words: str  # with the figures


def check_rails(
    challenger: EvaluationReport,
    champion: ChampionComparison | None,
    cost: ServingCost | None,
    rails: PromotionRails,
    metric: str,
    segment: str,
    min_users: int,
) -> tuple[RailCheck, ...]:
    """Every rail that can be checked.

    A drop for cold users or items counts only where it is shown, by the interval of the difference and with enough
    users, because windows often hold few of them.

    Args:
        metric: of the cold users and items.
        segment: whose lists coverage is measured on.
        min_users: below which a drop is not judged.
    """
    found: list[RailCheck] = []
    if champion is not None:
        now, before = challenger.metric(COVERAGE, segment), champion.report.metric(COVERAGE, segment)
        if now is not None and before is not None:
            least = rails.min_coverage_share * before
            words = f"the lists cover {now:.3f} of the catalogue, at least {least:.3f} are required"
            found.append(RailCheck(name="coverage", passed=now >= least, words=words))
        found += _cold(champion, rails.max_cold_drop, metric, min_users)
    if cost is not None:
        for name, value, limit, unit in (
            ("query_ms", cost.query_ms, rails.max_query_ms, "ms for one query"),
            ("model_mb", cost.model_mb, rails.max_model_mb, "MB in size"),
        ):
            at_most = "no limit is set" if limit is None else f"at most {limit:g} are allowed"
            found.append(
                RailCheck(name=name, passed=limit is None or value <= limit, words=f"{value:.3g} {unit}, {at_most}")
            )
    return tuple(found)


def _cold(champion: ChampionComparison, max_drop: float, metric: str, min_users: int) -> Iterator[RailCheck]:
    for segment in (COLD_USERS, COLD_ITEMS):
        paired = champion.figure(metric, segment)
        if paired is None or paired.n_users < min_users:
            continue
        yield RailCheck(
            name=segment,
            passed=not (paired.shown_worse and paired.below(max_drop)),
            words=f"{metric} of {segment} is {paired.challenger:.4f} beside {paired.champion:.4f} of the champion, "
            f"a shown drop of more than {100 * max_drop:.3g} % is not allowed",
        )
