"""Tune one peer on the validation queries, fit it on what came before the test window, and score the test's users.

    python run.py --queries FOLDER --peer NAME --space JSON --out FOLDER

Runs in the peers' own environment and imports nothing of the product. Every configuration that was tried is a line of
`tuning.jsonl`, so that an interrupted search goes on where it was; `result.json` is written last.
"""

import argparse
import json
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from queries import Log, Queries, ndcg, read_queries
from recommenders import FITS, Scorer, counts_of_items

Config = dict[str, Any]
USERS_SCORED_AT_ONCE = 256
EPOCHS_FACTOR = 4
"""SASRec's search is one long fit: it may take so many times the seconds of the others'."""
PACKAGES = {
    "item-knn": "pm-implicit",
    "ials": "pm-implicit",
    "bpr": "pm-implicit",
    "ease": "rectools",
    "sasrec": "rectools",
    "warp": "lightfm-next",
}


class Tuning:
    """What configurations reach on the validation queries, remembered on disk."""

    def __init__(self, path: Path, queries: Queries) -> None:
        self.path, self.queries = path, queries
        lines = path.read_text().splitlines() if path.exists() else []
        self.trials = {_key(line["config"]): line for line in map(json.loads, lines)}

    @property
    def seconds(self) -> float:
        return sum(line["seconds"] for line in self.trials.values())

    @property
    def best(self) -> Config:
        return max(self.trials.values(), key=lambda line: line["ndcg@10"])["config"]

    def known(self, config: Config) -> float | None:
        line = self.trials.get(_key(config))
        return None if line is None else line["ndcg@10"]

    def add(self, config: Config, reached: float, seconds: float) -> None:
        line = {"config": config, "ndcg@10": reached, "seconds": round(seconds, 2)}
        self.trials[_key(config)] = line
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{reached:.4f} {config} {seconds:.1f} s", flush=True)

    def measure(self, score: Scorer) -> float:
        """NDCG@10 over the validation queries."""
        queries = self.queries
        total = 0.0
        for start in range(0, len(queries.validation_users), USERS_SCORED_AT_ONCE):
            rows = slice(start, start + USERS_SCORED_AT_ONCE)
            scores = with_cold_users(score, queries.train, queries.validation_users[rows])
            total += ndcg(scores, queries.validation_targets[rows], queries.validation_masked[rows]).sum()
        return total / len(queries.validation_users)


def tune(peer: str, space: Config, tuning: Tuning, seconds: float, threads: int, seed: int) -> tuple[Config, bool]:
    """Coordinate search: twice through the parameters, each over its values with the others at their best.

    Starts from the first value of each, which is the authors' default. Returns the best configuration, and whether the
    budget ended the search.
    """
    best = {name: values[0] for name, values in space.items()}
    for _ in range(2):
        for name, values in space.items():
            for value in values:
                config = {**best, name: value}
                if tuning.known(config) is not None:
                    continue
                if tuning.trials and tuning.seconds > seconds:
                    return tuning.best, True
                began = time.perf_counter()
                score = FITS[peer](tuning.queries.train, config, threads, seed)
                tuning.add(config, tuning.measure(score), time.perf_counter() - began)
            best = tuning.best
    return best, False


def tune_epochs(space: Config, tuning: Tuning, seconds: float, threads: int, seed: int) -> tuple[Config, bool]:
    """SASRec's one search: the epochs, by early stopping; the rest is the first value of each parameter."""
    from sasrec import SasRec

    config = {name: values[0] for name, values in space.items() if name != "epochs"}
    model = SasRec(tuning.queries.train, config, threads, seed)
    worse, done, spent = 0, 0, 0.0
    for epochs in space["epochs"]:
        began = time.perf_counter()
        model.go_on(epochs - done)
        done = epochs
        reached = tuning.measure(model.score)
        spent += time.perf_counter() - began
        tuning.add({**config, "epochs": epochs}, reached, time.perf_counter() - began)
        worse = 0 if tuning.best["epochs"] == epochs else worse + 1
        if worse == 3:
            break
        if spent > EPOCHS_FACTOR * seconds:
            return tuning.best, True
    return tuning.best, False


def with_cold_users(score: Scorer, log: Log, users: np.ndarray) -> np.ndarray:
    """float32 [n, n_items]: the peer's scores, and popularity for users without an event in the log."""
    cold = np.diff(log.binary.indptr)[users] == 0
    scores = np.empty((len(users), log.n_items), dtype=np.float32)
    if not cold.all():
        scores[~cold] = score(users[~cold])
    scores[cold] = counts_of_items(log)
    return scores


def fit(peer: str, log: Log, config: Config, threads: int, seed: int) -> Scorer:
    if peer == "sasrec":
        from sasrec import SasRec

        return SasRec(log, config, threads, seed).go_on(config["epochs"]).score
    return FITS[peer](log, config, threads, seed)


def _key(config: Config) -> str:
    return json.dumps(config, sort_keys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--space", type=json.loads, required=True, help="JSON: parameter -> values to try")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tune-seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    queries = read_queries(arguments.queries)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tuning = Tuning(arguments.out / "tuning.jsonl", queries)
    how = (arguments.space, tuning, arguments.tune_seconds, arguments.threads, arguments.seed)
    config, cut_short = tune_epochs(*how) if arguments.peer == "sasrec" else tune(arguments.peer, *how)
    log, users = queries.before_test, queries.test_users
    began = time.perf_counter()
    score = fit(arguments.peer, log, config, arguments.threads, arguments.seed)
    fitted = time.perf_counter()
    shape = (len(users), log.n_items)
    scores = np.lib.format.open_memmap(arguments.out / "scores.npy", mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, len(users), USERS_SCORED_AT_ONCE):
        scores[start : start + USERS_SCORED_AT_ONCE] = with_cold_users(
            score, log, users[start : start + USERS_SCORED_AT_ONCE]
        )
    scores.flush()
    ended = time.perf_counter()
    package = PACKAGES.get(arguments.peer)
    result = {
        "config": config,
        "version": f"{package} {version(package)}" if package else "",
        "tried": len(tuning.trials),
        "cut_short": cut_short,
        "tune_seconds": tuning.seconds,
        "fit_seconds": fitted - began,
        "recommend_seconds": 1_000 * (ended - fitted) / max(1, len(users)),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    part = arguments.out / "result.json.part"
    part.write_text(json.dumps(result, indent=2))
    part.rename(arguments.out / "result.json")


if __name__ == "__main__":
    main()
