"""Forecasts beside what trainings took: `python -m tests.benchmarks.forecasts [--busy] [--out FILE]`.

Fits every family on each data set at hand, each data set in a process of its own, and prints processor seconds and
memory, forecast and taken, with the ratio of the two. Formulas were fitted to MovieLens 100k and 1M and to Complete
Journey; Amazon Toys and the generated ones judge them. Nothing is known of earlier trainings, so the forecasts are
those of a first training. Epochs of the sequential family are few and fixed (`--epochs`), since nobody can know where
early stopping ends a fit, and its large data sets are measured on a share of their users (`--deep-events`).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from feature_store.interaction_types import SeenPolicy
from feature_store.loaders.problems import ImportRefusedError
from tests.benchmarks.generated import RECIPES, generate
from tests.benchmarks.quality.datasets import files_of
from tests.fixtures.busy import busy_cores
from training.config import config_for
from training.data.dataset import Dataset
from training.data.loaders import load_dataset_files
from training.data.profile import DataProfile
from training.data.splits import Split, leave_one_out_split, temporal_split
from training.evaluation.comparison import ENSEMBLE_MEMBERS, FAMILIES
from training.models.contract import ModelConfig, RuntimeOptions
from training.models.registry import is_ensemble
from training.train import EvaluatedModel, evaluate_family

TRIVIAL_SECONDS = 1.0
"""Under it a ratio says nothing that anybody would wait for."""
LINE = "| {:<16} | {:<13} | {:>9} | {:>9} | {:>8} | {:>5} | {:>11} | {:>7} | {:>5} |"
HEAD = ("data", "family", "events", "s forecast", "s taken", "ratio", "MB forecast", "MB peak", "ratio")


@dataclass(frozen=True)
class Run:
    """One data set under one protocol."""

    dataset: str
    temporal: bool
    exclude_seen: SeenPolicy
    load: Callable[[argparse.Namespace], Dataset | None]  # None: it is not at hand

    def split(self, dataset: Dataset) -> Split:
        return (temporal_split if self.temporal else leave_one_out_split)(dataset, self.exclude_seen)


def _of_wheel(name: str) -> Callable[[argparse.Namespace], Dataset | None]:
    def load(arguments: argparse.Namespace) -> Dataset | None:
        with TemporaryDirectory() as work:
            found = files_of(name, arguments.work or Path(work), {})
            return found and load_dataset_files(found.interactions, found.items).dataset

    return load


def _of_folder(option: str) -> Callable[[argparse.Namespace], Dataset | None]:
    def load(arguments: argparse.Namespace) -> Dataset | None:
        folder: Path | None = getattr(arguments, option)
        return folder and load_dataset_files(folder / "interactions.parquet", folder / "items.parquet").dataset

    return load


def _of_recipe(name: str) -> Callable[[argparse.Namespace], Dataset]:
    return lambda _: generate(RECIPES[name])


RUNS = {
    run.dataset: run
    for run in (
        Run("movielens-100k", True, "all", _of_wheel("movielens-100k")),
        Run("ml-1m", False, "all", _of_folder("ml_1m")),
        Run("complete-journey", True, "none", _of_wheel("complete-journey")),
        Run("amazon-toys", False, "all", _of_folder("amazon_toys")),
        Run("dense", True, "all", _of_recipe("dense")),
        Run("sparse", True, "all", _of_recipe("sparse")),
        Run("long", True, "none", _of_recipe("long")),
    )
}


def measure(run: Run, dataset: Dataset, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One line for each family, base models before the ensemble of them."""
    options = RuntimeOptions(threads=arguments.threads, max_seconds=arguments.max_seconds)
    split, fewer = run.split(dataset), some_users(dataset, arguments.deep_events)
    base_models: dict[str, EvaluatedModel] = {}
    for family in arguments.models.split(","):
        smaller = family == "deep-learning" and fewer is not dataset
        found = evaluate_family(
            family,
            run.split(fewer) if smaller else split,
            options=options,
            config=_config(family, run.dataset, split.train, arguments.epochs),
            base_models=base_models if is_ensemble(family) else {},
        )
        if family in ENSEMBLE_MEMBERS and not smaller:
            base_models[family] = found
        notes, usage = found.report.notes, found.usage
        yield {
            "data": run.dataset,
            "family": family,
            "events": notes["rows"],
            "forecast_cpu_seconds": notes["forecast_cpu_seconds"],
            "cpu_seconds": round(usage.cpu_seconds, 3),
            "forecast_peak_mb": notes["forecast_peak_mb"],
            "peak_mb": round(usage.peak_mb, 1),
            "seconds": round(usage.seconds, 3),
            "machine": notes["machine"],
            "busy": arguments.busy,
        }


def some_users(dataset: Dataset, events: int) -> Dataset:
    """The data set where it is small, else the events of users drawn at random, about so many."""
    share = events / len(dataset.interactions)
    if share >= 1:
        return dataset
    drawn = np.random.default_rng(0).random(dataset.n_users) < share
    return dataset.where(drawn[dataset.interactions.users])


def _config(family: str, dataset: str, train: Dataset, epochs: int) -> ModelConfig:
    """The defaults for the data, and the file of the data set where there is one."""
    bounded = {"epochs": epochs, "patience": epochs, "refit_epochs": 1} if family == "deep-learning" else None
    return config_for(family, DataProfile.of(train), bounded, Path(str(files("configs"))) / "models" / dataset)


def line(found: dict[str, Any]) -> str:
    """A row of the table; the ratio of time is there where there was any time to speak of."""
    forecast, taken = found["forecast_cpu_seconds"], found["cpu_seconds"]
    return LINE.format(
        *(found["data"], found["family"], f"{found['events']:,}", f"{forecast:.1f}", f"{taken:.1f}"),
        f"{forecast / taken:.2f}" if max(forecast, taken) >= TRIVIAL_SECONDS else "-",
        *(f"{found['forecast_peak_mb']:,.0f}", f"{found['peak_mb']:,.0f}"),
        f"{found['forecast_peak_mb'] / found['peak_mb']:.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ml-1m", type=Path, help="folder with interactions.parquet and items.parquet")
    parser.add_argument("--amazon-toys", type=Path, help="folder with interactions.parquet and items.parquet")
    parser.add_argument("--models", default=",".join(FAMILIES))
    parser.add_argument("--data", default=",".join(RUNS), help="names with commas between; default: all")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # the one that is measured in this process
    parser.add_argument("--busy", action="store_true", help="with a busy loop on each core")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--deep-events", type=int, default=200_000, help="of the users that deep-learning is fitted on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-seconds", type=float, default=2_700)
    parser.add_argument("--work", type=Path, help="folder that keeps the files of wheels")
    parser.add_argument("--out", type=Path, help="add the figures to this file, a line of JSON each")
    arguments = parser.parse_args()
    if arguments.here is None:
        print(LINE.format(*HEAD), LINE.format(*["---"] * len(HEAD)), sep="\n", flush=True)
        threads = {name: str(arguments.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        for name in arguments.data.split(","):
            command = [sys.executable, "-m", "tests.benchmarks.forecasts", *sys.argv[1:], "--here", name]
            subprocess.run(command, check=True, env={**os.environ, **threads})
        return
    run = RUNS[arguments.here]
    try:
        dataset = run.load(arguments)
    except ImportRefusedError as missing:
        print(f"{run.dataset} is left out: {missing}", file=sys.stderr)
        return
    if dataset is None:
        print(f"{run.dataset} is left out: no folder was given", file=sys.stderr)
        return
    with busy_cores() if arguments.busy else nullcontext():
        for found in measure(run, dataset, arguments):
            print(line(found), flush=True)
            if arguments.out is not None:
                with arguments.out.open("a") as out:
                    out.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
