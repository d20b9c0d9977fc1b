"""Steps of `deep-learning` on a large generated log: `python -m tests.benchmarks.streamed_fit --events N --steps N`.

Columns of events are written into a folder below `--folder` and memory-mapped, as those of a large snapshot are. Then
a fit takes its first steps: hold-out, content of items, popularity, sequences, steps, validation, and the check of the
evidence. Prints JSON: the highest resident memory of the process, the part of it that no file backs (what is left of
it can be dropped where memory is short), and what an epoch of all events would take at this rate.
"""

import argparse
import json
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from feature_store import columns as c
from training.data.dataset import Dataset, Interactions, ItemTable
from training.data.mapped_columns import Columns, map_columns, write_columns
from training.data.stored_metadata import StoredMetadata
from training.models.contract import RuntimeOptions
from training.models.deep_learning import loop
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.model import DeepLearning
from training.resource_usage import measure_usage

USERS_AT_ONCE = 100_000
DAYS = 365


def generated(n_events: int, n_users: int, n_items: int, seed: int) -> Iterator[Columns]:
    """Columns of events by user and time; items and the activity of users follow power laws."""
    rng = np.random.default_rng(seed)
    activity = rng.pareto(1.5, n_users) + 0.2
    per_user = np.floor(activity / activity.sum() * n_events).astype(np.int64)
    per_user[: n_events - int(per_user.sum())] += 1
    for first in range(0, n_users, USERS_AT_ONCE):
        counts = per_user[first : first + USERS_AT_ONCE]
        n = int(counts.sum())
        users = np.repeat(np.arange(first, first + len(counts), dtype=np.int32), counts)
        items = np.minimum(n_items * rng.random(n) ** 3, n_items - 1).astype(np.int32)
        times = np.int64(1_700_000_000_000_000) + rng.integers(0, DAYS * c.MICROS_PER_DAY, n)
        order = np.lexsort((items, times, users))
        yield users, items[order], np.ones(n, np.int8), np.full(n, 0.5, np.float32), times[order]


def data_set(folder: Path, n_events: int, n_users: int, n_items: int) -> Dataset:
    """The mapped data set."""
    columns = folder / "columns"
    columns.mkdir()
    write_columns(columns, n_events, generated(n_events, n_users, n_items, seed=0))
    texts = pa.chunked_array([[json.dumps({"genre": f"g{n % 40}", "year": 1950 + n % 70}) for n in range(n_items)]])
    ids = np.arange(n_items).astype(str).astype(object)
    items = ItemTable(ids, StoredMetadata(texts), np.ones(n_items, bool))
    return Dataset(Interactions(*map_columns(columns), spool=folder), items, n_users)


class PrivateMemory(threading.Thread):
    """The largest memory of this process that no file backs, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0

    def run(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            now = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))
            self.peak_mb = max(self.peak_mb, now)
            time.sleep(0.1)


def measured(dataset: Dataset, steps: int, threads: int) -> dict[str, Any]:
    """What a fit of so many steps took."""
    taken: list[float] = []
    covered: list[int] = []
    whole = loop.epoch

    def first_steps(*arguments: Any) -> Iterator[Any]:
        for share, batch in islice(whole(*arguments), steps):
            began = time.perf_counter()
            yield share, batch
            taken.append(time.perf_counter() - began)
            covered.append(int(batch.lengths.sum()))

    loop.epoch = first_steps
    config = DeepLearningConfig(epochs=1, refit_epochs=0)
    private = PrivateMemory()
    private.start()
    with measure_usage() as usage:
        DeepLearning(config).fit(dataset, RuntimeOptions(threads=threads, max_seconds=1e6))
    events = len(dataset.interactions)
    return {
        "events": events,
        "users": dataset.n_users,
        "items": dataset.n_items,
        "steps": len(taken),
        "seconds": round(usage.result.seconds),
        "cpu_seconds": round(usage.result.cpu_seconds),
        "peak_mb": round(usage.result.peak_mb),
        "peak_mb_without_files": round(private.peak_mb),
        "seconds_a_step": round(sum(taken) / len(taken), 3),
        "hours_an_epoch": round(sum(taken) / sum(covered) * events / 3_600, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Steps of deep-learning on a large generated log.")
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="of the generated files, 21 bytes an event; deleted"
    )
    arguments = parser.parse_args()
    with TemporaryDirectory(dir=arguments.folder, prefix=".streamed-") as folder:
        dataset = data_set(Path(folder), arguments.events, arguments.users, arguments.items)
        print(json.dumps(measured(dataset, arguments.steps, arguments.threads), indent=1))


if __name__ == "__main__":
    main()
