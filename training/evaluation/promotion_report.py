"""The report on a promotion: what was compared on which window, the intervals, the guard rails and the verdict."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from training.evaluation.champion_comparison import ChampionComparison, PairedFigure, ServingCost
from training.evaluation.guard_rails import RailCheck
from training.evaluation.promotion import Decision, Floor, IncomparableChampion, PromotionPolicy, PromotionVerdict
from training.evaluation.report import EvaluationReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOTTED_METRICS = ("ndcg@10", "recall@10", "mrr", "auc")
_COLOURS = {"better": "#2a7", "worse": "#c33", "undecided": "#777"}


class PromotionReport(BaseModel):
    """What a person has to know to sign the decision, or to change it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    version: str  # the challenger
    champion: str | None  # what it was compared with, as a person finds it in the registry
    decided_at: str  # RFC 3339
    snapshot_id: str
    split_hash: str  # the window
    protocol: str
    metric: str
    segment: str | None  # the users that decided; None where no figure did
    figures: dict[str, dict[str, PairedFigure]]  # segment to metric; empty without a comparison
    same_configuration: bool
    rails: list[RailCheck]
    cost: ServingCost | None
    floor: Floor
    policy: PromotionPolicy
    verdict: PromotionVerdict
    promoted: bool
    reason: str

    @classmethod
    def of(
        cls,
        decision: Decision,
        version: str,
        challenger: EvaluationReport,
        champion: ChampionComparison | IncomparableChampion | None,
        policy: PromotionPolicy,
        cost: ServingCost | None,
        decided_at: str,
    ) -> "PromotionReport":
        """The report on a decision about this challenger. decided_at: RFC 3339."""
        compared = champion if isinstance(champion, ChampionComparison) else None
        return cls(
            family=challenger.family,
            version=version,
            champion=None if champion is None else champion.version,
            decided_at=decided_at,
            snapshot_id=challenger.snapshot_id,
            split_hash=challenger.split_hash,
            protocol=challenger.protocol,
            metric=policy.metric,
            segment=decision.segment,
            figures={} if compared is None else compared.figures,
            same_configuration=compared is not None and compared.same_configuration,
            rails=list(decision.rails),
            cost=cost,
            floor=policy.floor(challenger.family),
            policy=policy,
            verdict=decision.verdict,
            promoted=decision.promote,
            reason=decision.reason,
        )

    def rows(self) -> list[dict[str, str | int | float | None]]:
        """The paired differences as rows of a table: the deciding figure first, then what is worth a look beside it."""
        return [
            {
                "segment": segment,
                "metric": metric,
                "users": one.n_users,
                "challenger": round(one.challenger, 4),
                "champion": round(one.champion, 4),
                "difference": round(one.difference.mean, 4),
                "low": _rounded(one.difference.low),
                "high": _rounded(one.difference.high),
            }
            for segment, metric, one in self._shown()
        ]

    def as_text(self) -> str:
        """The report as Markdown."""
        against = "no champion" if self.champion is None else self.champion
        lines = [
            f"# {self.family} version {self.version}: {self.verdict.value}",
            "",
            f"{'Promoted' if self.promoted else 'Not promoted'} on {self.decided_at}: {self.reason}.",
            "",
            f"- Compared with: {against}",
            f"- Window: {self.split_hash} of the snapshot {self.snapshot_id}; {self.protocol}",
            f"- Decides: {self.metric} of {self.segment or 'no segment with enough users'}",
            f"- Refused where shown worse (95 % interval below 0) or more than {100 * self.policy.max_drop:.3g} % "
            f"below; undecided above a standard error of {100 * self.policy.max_relative_error:.3g} %, then: "
            f"{self.policy.undecided}",
        ]
        if self.same_configuration:
            lines.append(
                "- The champion has the same configuration, so its fit on this window would give the same model."
            )
        if rows := self.rows():
            cells = [["" if cell is None else str(cell) for cell in row.values()] for row in rows]
            lines += ["", *(f"| {' | '.join(row)} |" for row in [list(rows[0]), ["---"] * len(rows[0]), *cells])]
        if self.rails:
            lines += ["", "Guard rails:", ""]
            lines += [f"- {rail.name} {'holds' if rail.passed else 'is BROKEN'}: {rail.words}" for rail in self.rails]
        return "\n".join(lines) + "\n"

    def plot(self) -> "Figure | None":
        """The differences in per cent of the champion's mean with their 95 % intervals; None without a comparison."""
        from matplotlib.figure import Figure  # takes half a second, which reading a report need not spend

        found = [each for each in self._shown() if each[2].champion]  # of 0 nothing is a share
        shown = [(f"{metric}, {segment} ({one.n_users})", one) for segment, metric, one in found]
        if not shown:
            return None
        figure = Figure(figsize=(7, 1.2 + 0.35 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        for place, (_, one) in enumerate(shown):
            low, mean, high = (
                100 * (one.difference.mean if value is None else value) / one.champion
                for value in (one.difference.low, one.difference.mean, one.difference.high)
            )
            colour = _COLOURS["better" if low > 0 else "worse" if high < 0 else "undecided"]
            axes.errorbar([mean], [place], xerr=[[mean - low], [high - mean]], fmt="o", capsize=3, color=colour)
        axes.axvline(0, color="#000", linewidth=0.8)
        axes.axvline(-100 * self.policy.max_drop, color="#c33", linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.invert_yaxis()
        axes.set_xlabel("challenger minus champion in % of the champion's mean, with 95 % intervals")
        axes.set_title(f"{self.family} version {self.version}: {self.verdict.value}", fontsize=10)
        return figure

    def _shown(self) -> Iterator[tuple[str, str, PairedFigure]]:
        first = self.segment or "all"
        metrics = [self.metric, *(name for name in PLOTTED_METRICS if name != self.metric)]
        for segment in [first, *(name for name in self.figures if name != first)]:
            for metric in metrics if segment == first else [self.metric]:
                if (one := self.figures.get(segment, {}).get(metric)) is not None:
                    yield segment, metric, one


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
