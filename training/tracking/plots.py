"""Plots of one training, as figures of Matplotlib that MLflow stores as PNG beside the run."""

from collections.abc import Sequence
from typing import Any

from configs.escaping import plot_text
from training.evaluation.diagnostics import BANDS, PopularityShares, Reliability
from training.evaluation.report import RANDOM, EvaluationReport
from training.train import TrainedModel

FOLDER = "plots"
"""The folder of plots among a run's artefacts."""
MAX_CURVES = 6
MAX_SEGMENTS = 8
_METRIC = "ndcg@10"


def training_plots(trained: TrainedModel) -> dict[str, Any]:
    """Figures by name. A plot is left out where the training has nothing to show in it."""
    found = {
        "learning_curve": _learning_curve(trained.report.notes),
        "segments": _segments(trained.report),
        "reliability": None,
        "popularity": None,
    }
    if trained.diagnostics is not None:
        if (reliability := trained.diagnostics.reliability) is not None:
            found["reliability"] = _reliability(reliability)
        if (popularity := trained.diagnostics.popularity) is not None:
            found["popularity"] = _popularity(popularity)
    return {name: figure for name, figure in found.items() if figure is not None}


def _learning_curve(notes: dict[str, Any]) -> Any:
    """Every series that the fit recorded, such as the loss of each epoch; None where it recorded none."""
    curves = {
        name: values
        for name, values in notes.items()
        if isinstance(values, list) and len(values) > 1 and all(isinstance(value, int | float) for value in values)
    }
    if not curves:
        return None
    shown = list(curves.items())[:MAX_CURVES]
    figure, axes = _figure(columns=len(shown))
    for each, (name, values) in zip(axes, shown, strict=True):
        each.plot(range(1, len(values) + 1), values, marker="o", markersize=3, linewidth=1.2)
        each.set(title=plot_text(name), xlabel="epoch")
    return figure


def _segments(report: EvaluationReport) -> Any:
    """The deciding metric of each segment with its interval, beside that of a random order."""
    rows = [
        (result.segment, result.n_users, result.metrics[_METRIC], report.metric(_METRIC, result.segment, RANDOM))
        for result in report.results
        if result.model == report.family and _METRIC in result.metrics
    ][:MAX_SEGMENTS]
    if not rows:
        return None
    figure, (axes,) = _figure()
    names = [f"{segment} ({users:,} users)" for segment, users, _, _ in rows]
    means = [each.mean for _, _, each, _ in rows]
    below = [0.0 if each.low is None else each.mean - each.low for _, _, each, _ in rows]
    above = [0.0 if each.high is None else each.high - each.mean for _, _, each, _ in rows]
    axes.barh(names, means, xerr=[below, above], capsize=3, height=0.6, label=report.family)
    expected = [(name, value) for name, (_, _, _, value) in zip(names, rows, strict=True) if value is not None]
    axes.plot([value for _, value in expected], [name for name, _ in expected], "k|", markersize=14, label=RANDOM)
    axes.invert_yaxis()
    axes.set(xlabel=f"{_METRIC} with its 95 % interval", xlim=(0, None))
    axes.legend(fontsize=8)
    return figure


def _reliability(found: Reliability) -> Any:
    """Whether items with higher scores were chosen more often."""
    if not found.scores:
        return None
    figure, (axes,) = _figure()
    axes.plot(found.scores, found.chosen, marker="o")
    axes.set(xlabel="score of the response", ylabel="share that was chosen", xlim=(0, 1), ylim=(0, None))
    for x, y, pairs in zip(found.scores, found.chosen, found.pairs, strict=True):
        axes.annotate(f"{pairs:,}", (x, y), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=7)
    axes.set_title("numbers: items with such a score", fontsize=8)
    return figure


def _popularity(found: PopularityShares) -> Any:
    """Where choices, lists and hits lie between the most popular items and those without any event."""
    figure, (axes,) = _figure()
    places = range(BANDS + 1)
    for offset, name, values in (
        (-0.27, "chosen", found.targets),
        (0.0, "in lists", found.listed),
        (0.27, "hits", found.hits),
    ):
        axes.bar([place + offset for place in places], values, width=0.25, label=name)
    labels: Sequence[str] = [*(f"{10 * place}-{10 * place + 10} %" for place in range(BANDS)), "no event"]
    axes.set_xticks(list(places), labels, fontsize=7)
    axes.set(xlabel="items from the most to the least popular, a tenth of all events each", ylabel="share")
    axes.legend(fontsize=8)
    return figure


def _figure(columns: int = 1) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # takes half a second, which readers of the registry need not spend

    figure = Figure(figsize=(7 if columns == 1 else 3.2 * columns, 3.2), dpi=90, layout="constrained")
    axes = [figure.add_subplot(1, columns, place + 1) for place in range(columns)]
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes
