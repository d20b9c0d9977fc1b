"""Estimates beside measurements: `python -m tests.benchmarks.estimates [--ml-1m FOLDER] [--out FILE]`.

Fits every family on MovieLens 100k, on MovieLens 1M where it is given and on Complete Journey where its wheel is
installed, each data set in a process of its own, and prints what was expected and what it took. Seconds are of the
clock and of the processor; with one thread and nothing else to do they are the same, and on a busy machine an
estimate is held against the latter. Epochs of the sequential family are few and fixed (`--epochs`): where early
stopping ends a fit nobody can know.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from feature_store.loaders.problems import ImportRefusedError
from tests.benchmarks.quality.datasets import MOVIELENS_1M, RUNS, Files, Run, files_of
from training.config import load_config
from training.data.loaders import load_dataset_files
from training.data.splits import Split, leave_one_out_split, temporal_split
from training.evaluation.comparison import ENSEMBLE_MEMBERS, FAMILIES
from training.models.contract import ModelConfig, RuntimeOptions
from training.models.registry import is_ensemble
from training.train import EvaluatedModel, evaluate_family

TRIVIAL_SECONDS = 1.0
"""Under it a factor says nothing that anybody would wait for."""
LINE = "{:<18}{:<15}{:>10}{:>13}{:>9}{:>7}{:>6}{:>9}{:>9}{:>9}{:>6}"
HEAD = ("data", "family", "rows", "parameters", "MB said", "MB", "", "s said", "cpu s", "wall s", "")


def measure(
    run: Run, files_: Files, families: list[str], epochs: int, options: RuntimeOptions
) -> Iterator[dict[str, Any]]:
    """One line for each family, components before what blends them."""
    dataset = load_dataset_files(files_.interactions, files_.items).dataset
    cut = temporal_split if run.protocol == "temporal" else leave_one_out_split
    split: Split = cut(dataset, run.exclude_seen)
    base_models: dict[str, EvaluatedModel] = {}
    for family in families:
        found = evaluate_family(
            family,
            split,
            options=options,
            config=_config(family, run.dataset, epochs),
            base_models=base_models if is_ensemble(family) else {},
        )
        if family in ENSEMBLE_MEMBERS:
            base_models[family] = found
        notes, usage = found.report.notes, found.usage
        yield {
            "data": run.dataset,
            "family": family,
            **{key: notes[key] for key in ("rows", "estimated_parameters", "estimated_peak_mb", "estimated_seconds")},
            "peak_mb": usage.peak_mb,
            "cpu_seconds": usage.cpu_seconds,
            "seconds": usage.seconds,
            "stopped_by_time": notes.get("stopped") == "time",
        }


def _config(family: str, dataset: str, epochs: int) -> ModelConfig:
    """That of the data set, where there is one."""
    bounded = {"epochs": epochs, "patience": epochs, "refit_epochs": 1} if family == "deep-learning" else None
    return load_config(family, bounded, Path(str(files("configs"))) / "models" / dataset)


def line(found: dict[str, Any]) -> str:
    """A line of the table; the factor of time is there where there was any time to speak of."""
    said, took = found["estimated_seconds"], found["seconds"]
    if not found["stopped_by_time"]:
        took = min(took, found["cpu_seconds"])
    factor = f"{said / took:.2f}" if max(said, took) >= TRIVIAL_SECONDS else "-"
    return LINE.format(
        *(found["data"], found["family"], f"{found['rows']:,}", f"{found['estimated_parameters']:,}"),
        *(f"{found['estimated_peak_mb']:,.0f}", f"{found['peak_mb']:,.0f}"),
        f"{found['estimated_peak_mb'] / found['peak_mb']:.2f}",
        *(f"{said:.2f}", f"{found['cpu_seconds']:.2f}", f"{found['seconds']:.2f}", factor),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ml-1m", type=Path, help="folder with interactions.parquet and items.parquet")
    parser.add_argument("--models", default=",".join(FAMILIES))
    parser.add_argument("--data", help="one of them, measured in this process")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-seconds", type=float, default=2_700)
    parser.add_argument("--work", type=Path, help="folder that keeps the files of wheels")
    parser.add_argument("--out", type=Path, help="add the figures to this file, a line of JSON each")
    arguments = parser.parse_args()
    runs = {run.dataset: run for run in RUNS if run.protocol == "temporal" or run.dataset == MOVIELENS_1M}
    if arguments.data is None:
        print(LINE.format(*HEAD), flush=True)
        for dataset in runs:
            subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.estimates", *sys.argv[1:], "--data", dataset], check=True
            )
        return
    with TemporaryDirectory() as work:
        run = runs[arguments.data]
        try:
            files_ = files_of(run.dataset, arguments.work or Path(work), arguments.ml_1m)
        except ImportRefusedError as missing:
            print(f"{run.dataset} is left out: {missing}")
            return
        if files_ is None:
            print(f"{run.dataset} is left out: no folder was given (--ml-1m)")
            return
        options = RuntimeOptions(threads=arguments.threads, max_seconds=arguments.max_seconds)
        for found in measure(run, files_, arguments.models.split(","), arguments.epochs, options):
            print(line(found), flush=True)
            if arguments.out is not None:
                with arguments.out.open("a") as out:
                    out.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
