"""docs/benchmarks.md out of what a benchmark found."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

import yaml

from tests.benchmarks.quality.earlier import CHANCE, Earlier, sections
from tests.benchmarks.quality.peers import PEER
from training.evaluation.report import RANDOM
from training.evaluation.segments import ALL, COLD_ITEMS, COLD_USERS, NEW, REPEAT, WARM

HERE = Path(__file__).parent
TEMPLATE = HERE / "page.md"
PUBLISHED = HERE / "published.yaml"
COLUMNS = {
    "NDCG@10": "ndcg@10",
    "hit rate@10": "hit_rate@10",
    "recall@10": "recall@10",
    "MRR": "mrr",
    "AUC": "auc",
    "coverage@10": "coverage@10",
}
TITLES = {
    ALL: "all users",
    WARM: "warm users",
    COLD_USERS: "users without a history",
    REPEAT: "repeat purchases",
    NEW: "new purchases",
    COLD_ITEMS: "cold items",
}
SEARCHES = "What won the peers' searches"
OUR_SEARCHES = "What won our own searches"
WITHOUT_REFIT = "Without the refit on validation events"
AFTER_SEARCH = " after a search"
"""Behind the name of a family of ours whose configuration was searched on the validation window."""
HEAD = 2  # lines of a table before its first row
FEW = 30
"""A segment of fewer users is not shown."""


def render(benchmark: dict[str, Any], page: str = "") -> str:
    """The page.

    Args:
        benchmark: the JSON of `python -m tests.benchmarks.quality`.
        page: an earlier one, whose figures of models that were not measured now are kept.
    """
    return Template(TEMPLATE.read_text()).substitute(
        date=benchmark["date"],
        machine=benchmark["machine"],
        versions=", ".join(f"{name} {version}" for name, version in benchmark["versions"].items()),
        tune_seconds=f"{benchmark['tune_seconds']:g}",
        threads=benchmark["threads"],
        seed=benchmark["seed"],
        sections="\n".join([*_sections(benchmark["runs"], page), *_left_out(benchmark["left_out"])]),
        published=_published(),
    )


def _sections(runs: Sequence[dict[str, Any]], page: str) -> list[str]:
    """In the order of the earlier page; those that it lacks come last."""
    kept = {title: f"## {title}\n{text.rstrip()}\n" for title, text in sections(page).items()}
    return list({**kept, **{_title(run): _section(run, page) for run in runs}}.values())


def _title(run: dict[str, Any]) -> str:
    return f"{run['dataset']}, {run['kind']}"


def _section(run: dict[str, Any], page: str) -> str:
    earlier = Earlier(page, _title(run), run["split_hash"])
    lines = [f"## {_title(run)}", "", f"{run['protocol']}.", "", f"Split `{run['split_hash']}`.", ""]
    for segment, title in TITLES.items():
        rows = _of(run["results"], segment)
        n_users = run["n_users"].get(segment, 0)
        everybody_is_warm = segment == WARM and n_users == run["n_users"].get(ALL)
        if rows and n_users >= FEW and not everybody_is_warm:
            lines += [f"### {title[0].upper()}{title[1:]} ({n_users:,} users)", ""]
            lines += [*earlier.under(title.capitalize(), _figures(rows, with_costs=segment == ALL)), ""]
    searches = earlier.rows(SEARCHES, _searches(run["peers"]))
    if len(searches) > HEAD:
        lines += [f"### {SEARCHES}", "", *searches, ""]
    refits = earlier.rows(WITHOUT_REFIT, _without_refit(run.get("without_refit", [])))
    if len(refits) > HEAD:
        lines += [f"### {WITHOUT_REFIT}", "", *refits, ""]
    ours = earlier.rows(OUR_SEARCHES, _own_searches(run.get("searches", [])))
    if len(ours) > HEAD:
        lines += [f"### {OUR_SEARCHES}", "", *ours, ""]
    skipped = [one for one in run["skipped"] if _name(one["model"]) not in earlier.models]
    if skipped:
        lines += ["Left out here:", "", *(f"- {one['model']}: {one['reason']}" for one in skipped), ""]
    return "\n".join(lines)


def _of(results: Sequence[dict[str, Any]], segment: str) -> list[dict[str, Any]]:
    """The rows of a segment, best first; a random order comes last."""
    rows = [row for row in results if row["segment"] == segment]
    return sorted(rows, key=lambda row: (row["model"] == RANDOM, -row["metrics"]["ndcg@10"]["mean"]))


def _figures(rows: Sequence[dict[str, Any]], with_costs: bool) -> list[str]:
    costs = ["fit s", "s per 1,000 users", "peak MB"] if with_costs else []
    table = [["model", *COLUMNS, *costs]]
    for row in rows:
        cells = [_name(row["model"])]
        for title, metric in COLUMNS.items():
            cells.append(_estimate(row["metrics"].get(metric), with_interval=title == "NDCG@10"))
        if with_costs:
            cells += [_cost(row.get(key)) for key in ("fit_seconds", "recommend_seconds", "peak_mb")]
        table.append(cells)
    return _table(table)


def _name(model: str) -> str:
    """Ours in bold."""
    if model == RANDOM:
        return f"{CHANCE}, expected*"
    return model.removeprefix(PEER) + " (peer)" if model.startswith(PEER) else f"**{model}**"


def _estimate(estimate: dict[str, float] | None, with_interval: bool) -> str:
    if estimate is None:
        return ""
    mean = f"{estimate['mean']:.4f}".removeprefix("0")
    if not with_interval or estimate.get("low") is None:
        return mean
    return f"{mean} [{estimate['low']:.4f}, {estimate['high']:.4f}]".replace("0.", ".")


def _cost(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _searches(peers: Iterable[dict[str, Any]]) -> list[str]:
    table = [["peer", "version", "configuration", "tried", "tuning s"]]
    for peer in peers:
        config = ", ".join(f"{name} {'all' if value is None else value}" for name, value in peer["config"].items())
        trials = f"{peer['tried']}{' (out of time)' if peer['cut_short'] else ''}"
        row = [_name(peer["model"]), peer["version"] or "in the script", config, trials]
        table.append([*row, f"{peer['tune_seconds']:.0f}"])
    return _table(table)


def after_search(comparison: dict[str, Any]) -> dict[str, Any]:
    """The figures of our families under names that tell them from those of the defaults."""
    return {
        name: [{**each, "model": f"{each['model']}{AFTER_SEARCH}"} for each in listed]
        for name, listed in comparison.items()
    }


def _without_refit(found: Iterable[dict[str, Any]]) -> list[str]:
    """Leave-one-out figures of models that do not know the validation events, as most published ones are taken."""
    table = [["model", "NDCG@10", "hit rate@10", "MRR"]]
    for one in found:
        metrics = one["metrics"]
        cells = [_estimate(metrics["ndcg@10"], with_interval=True)]
        cells += [_estimate(metrics.get(name), with_interval=False) for name in ("hit_rate@10", "mrr")]
        table.append([_name(one["model"]), *cells])
    return _table(table)


def _own_searches(found: Iterable[dict[str, Any]]) -> list[str]:
    table = [["family", "found", "trials", "minutes", "configuration"]]
    for one in found:
        config = json.dumps(one["config"]) if one["adopted"] else "the default"
        table.append([_name(one["model"]), one["summary"], str(one["trials"]), f"{one['minutes']:.1f}", config])
    return _table(table)


def _left_out(left_out: Sequence[str]) -> list[str]:
    return ["## Not measured", "", *(f"- {each}" for each in left_out), ""] if left_out else []


def _published() -> str:
    table = [["model", "NDCG@10", "hit rate@10", "source"]]
    for one in yaml.safe_load(PUBLISHED.read_text()):
        figures = [f"{one[key]:.4f}".removeprefix("0") if key in one else "" for key in ("ndcg", "hit_rate")]
        table.append([one["model"], *figures, one["source"]])
    return "\n".join(_table(table)) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|" + "---|" * len(rows[0]), *body]
