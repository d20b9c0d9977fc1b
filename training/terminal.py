"""Terminal output: progress bars while models are fitted, and tables of their metrics."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from training.data.splits import Split
from training.evaluation.comparison import FamilyWithoutRefit, SkippedFamily
from training.evaluation.intervals import Estimate
from training.evaluation.paired_comparison import PairedComparison
from training.evaluation.report import RANDOM, SegmentResult
from training.evaluation.segments import protocol_of
from training.train import EvaluatedModel
from training.tuning.results import METRIC, TrialResult
from training.tuning.shared_search import FamilySearch

SHOWN = (
    *("ndcg@10", "ndcg@20", "recall@10", "recall@20", "hit_rate@10", "mrr", "auc"),
    *("coverage@10", "novelty", "gini", "intra_list_diversity"),
)
_WITH_INTERVALS = 25
"""Characters of a column that has room for intervals."""


class _Live:
    """Progress bars that are shown for as long as the block lasts."""

    progress: Progress

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


class EvaluationProgress(_Live):
    """One bar for all families, and one for the family that is being evaluated."""

    def __init__(self, console: Console, families: int) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.whole = self.progress.add_task("families", total=families, state="")
        self.own = self.progress.add_task("", total=None, state="", visible=False)
        self.family = ""

    def family_started(self, family: str) -> None:
        self.family = family
        self.progress.reset(self.own, total=None, description=family, state="fitting", visible=True)

    def step_ended(self, step: int, total: int, figure: float | None) -> None:
        reached = "" if figure is None else f", held-out figure {figure:.4f}"
        self.progress.update(self.own, completed=step, total=total, state=f"epoch {step} of at most {total}{reached}")

    def queries_ranked(self, done: int, total: int) -> None:
        self.progress.update(self.own, completed=done, total=total, state=f"{done} of {total} queries ranked")

    def search_started(self, family: str) -> None:
        self.progress.reset(self.own, total=None, description=family, state="searching", visible=True)

    def search_ended(self, found: FamilySearch) -> None:
        said = f"{found.model}: {found.summary}, searched for {found.minutes:.1f} min"
        self.console.print(said, style="dim", markup=False, highlight=False, soft_wrap=True)

    def family_ended(self, family: str, outcome: EvaluatedModel | SkippedFamily) -> None:
        if isinstance(outcome, SkippedFamily):
            said, style = f"{family}: skipped: {outcome.reason}", "yellow"
        else:
            reached = outcome.report.metric("ndcg@10")
            said = f"{family}: ndcg@10 {reached:.4f}, fitted in {outcome.usage.seconds:.1f} s"
            style = "green"
        self.console.print(said, style=style, markup=False, highlight=False, soft_wrap=True)
        self.progress.update(self.own, visible=False)
        self.progress.advance(self.whole)


class StudyProgress(_Live):
    """The time that a study has taken, and the best value so far."""

    def __init__(self, console: Console, minutes: float) -> None:
        self.console, self.best, self.began = console, 0.0, time.perf_counter()
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
        )
        self.task = self.progress.add_task("trials", total=60 * minutes)

    def show_trial(self, trial: TrialResult) -> None:
        reached = trial.reason if trial.value is None else f"{METRIC} {trial.value:.4f}"
        style = "green" if trial.value is not None and trial.value > self.best else "dim"
        self.best = max(self.best, trial.value or 0.0)
        said = f"trial {trial.number}: {trial.state}: {reached}, {trial.seconds:.1f} s"
        self.console.print(said, style=style, markup=False, highlight=False, soft_wrap=True)
        elapsed = time.perf_counter() - self.began
        self.progress.update(self.task, completed=elapsed, description=f"trials, best {self.best:.4f}")


def print_comparison(console: Console, split: Split, outcomes: Sequence[EvaluatedModel | SkippedFamily]) -> None:
    """A table for each segment, a column for each model and one for the expected figures of a random order."""
    measured = [outcome for outcome in outcomes if isinstance(outcome, EvaluatedModel)]
    for segment in dict.fromkeys(result.segment for outcome in measured for result in outcome.report.results):
        columns = {
            result.model: result
            for outcome in measured
            for result in outcome.report.results
            if result.segment == segment
        }
        console.print(_table(segment, list(columns.values()), console.width))
    for outcome in outcomes:
        if isinstance(outcome, SkippedFamily):
            console.print(f"{outcome.model} was skipped: {outcome.reason}", markup=False, highlight=False)
    console.print(f"protocol: {protocol_of(split)}", markup=False, highlight=False)
    console.print(f"split: {split.hash}", markup=False, highlight=False)


def print_without_refit(console: Console, found: Sequence[FamilyWithoutRefit]) -> None:
    """A line for each model: leave-one-out without the refit on validation events, as most published figures are."""
    if not found:
        return
    table = Table("", title="without the refit on validation events", title_justify="left")
    for name in found[0].metrics:
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(one.model, *(f"{estimate.mean:.4f}" for estimate in one.metrics.values()))
    console.print(table)


def print_paired_comparisons(console: Console, comparisons: Sequence[PairedComparison]) -> None:
    """A line for each pair of models, a column for each segment."""
    if not comparisons:
        return
    sizes = {each.segment: each.n_users for each in comparisons}
    title = f"{comparisons[0].metric}, the first less the second on the same users, with 95 % intervals"
    table = Table("", title=title, title_justify="left")
    for segment, users in sizes.items():
        table.add_column(f"{segment} ({users})", justify="right")
    by_key = {(each.one, each.other, each.segment): each for each in comparisons}
    for one, other in dict.fromkeys((each.one, each.other) for each in comparisons):
        cells = (by_key.get((one, other, segment)) for segment in sizes)
        table.add_row(f"{one} - {other}", *("" if each is None else _difference_cell(each) for each in cells))
    console.print(table)


def _difference_cell(comparison: PairedComparison) -> str:
    estimate = comparison.difference
    return f"{estimate.mean:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f}) {comparison.verdict}"


def _table(segment: str, results: Sequence[SegmentResult], width: int) -> Table:
    results = sorted(results, key=lambda result: (result.model == RANDOM, -result.metrics["ndcg@10"].mean))
    size = f"{segment}: {results[0].n_users} users, {results[0].n_targets} targets"
    table = Table("", title=size, title_justify="left")
    for result in results:
        table.add_column(result.model, justify="right")
    show = _with_interval if width >= _WITH_INTERVALS * (len(results) + 1) else _mean_only
    for name in SHOWN:
        table.add_row(name, *(show(result.metrics.get(name)) for result in results))
    for name, costs in (
        ("fit seconds", [result.fit_seconds for result in results]),
        ("seconds per 1,000 users", [result.recommend_seconds for result in results]),
        ("peak MB", [result.peak_mb for result in results]),
    ):
        table.add_row(name, *("" if cost is None else f"{cost:,.1f}" for cost in costs))
    return table


def _mean_only(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.mean:.4f}"


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return _mean_only(estimate)
    return f"{estimate.mean:.4f} ({estimate.low:.4f}-{estimate.high:.4f})"
