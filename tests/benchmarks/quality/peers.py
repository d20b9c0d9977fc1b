"""Other people's recommenders on one of our splits: run in their environment, measured by our code."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.benchmarks.quality.environment import LOCK, PEERS
from tests.benchmarks.quality.exchange import Replay, export
from tests.benchmarks.quality.families import NOT_YET
from training.data.splits import Split
from training.evaluation.report import RANDOM, evaluate_model

RUN = PEERS / "run.py"
SPACES = PEERS / "spaces.yaml"
PEER = "peer:"
"""Before the name of a peer in tables and JSON: some have the name of a family."""
_CONDITIONS = ("temporal", "leave-one-out", "repeats")

Space = dict[str, list[Any]]


@dataclass(frozen=True)
class Bounds:
    """How a peer runs."""

    tune_seconds: float = 240
    threads: int = 1
    seed: int = 0


def peers() -> tuple[str, ...]:
    """Names of all peers, cheap ones first."""
    return tuple(_spaces())


def space_of(peer: str, split: Split) -> Space | None:
    """What the peer's search tries on this split; None where the peer has nothing to say there."""
    given = _spaces()[peer]
    space = {name: values for name, values in given.items() if name not in _CONDITIONS}
    space |= given.get("leave-one-out" if split.known_until is None else "temporal", {})
    if split.mask != "all":
        space |= given.get("repeats", {})
    return space or None


def measure_peer(
    peer: str,
    split: Split,
    cache: Path,
    python: Callable[[], Path],
    bounds: Bounds,
    fit: bool = True,
) -> dict[str, Any] | None:
    """A peer's figures on the test window, with what it is; None where it has nothing to say on this split.

    Args:
        peer: a name of `peers()`.
        split: of ours.
        cache: holds what peers found, by split, peer, search space, bounds and lock; a second call takes it from there.
        python: gives the interpreter of the peers' environment, and is called only where something must run.
        bounds: of the run.
        fit: where not, only what was found before is told.

    Raises:
        RuntimeError: the peer failed, and where its log is; or it must run and may not.
    """
    space = space_of(peer, split)
    if space is None:
        return None
    queries = export(split, cache / split.hash / "queries")
    folder = cache / split.hash / f"{peer}-{_digest(peer, space, bounds)}"
    if not (folder / "result.json").exists():
        if not fit:
            raise RuntimeError(NOT_YET)
        _run(python(), peer, space, queries, folder, bounds)
    found = json.loads((folder / "result.json").read_text())
    report = evaluate_model(
        Replay.read(PEER + peer, folder / "scores.npy", split),
        split,
        seed=bounds.seed,
        fit_seconds=found["fit_seconds"],
        peak_mb=found["peak_mb"],
    )
    rows = [result.model_dump(mode="json") for result in report.results if result.model != RANDOM]
    for row in rows:
        row["recommend_seconds"] = found["recommend_seconds"]
    about = {key: found[key] for key in ("config", "version", "tried", "cut_short", "tune_seconds")}
    return {"rows": rows, "about": {"model": PEER + peer, **about}}


def random_order(split: Split) -> list[dict[str, Any]]:
    """The expected figures of a random order, one row a segment; an evaluation of any scores has them."""
    level = np.broadcast_to(np.float32(0), (len(split.test), split.before_test.n_items))
    report = evaluate_model(Replay(RANDOM, level), split, n_resamples=500)
    return [result.model_dump(mode="json") for result in report.results[1::2]]


def _run(python: Path, peer: str, space: Space, queries: Path, folder: Path, bounds: Bounds) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(python), str(RUN), "--queries", str(queries), "--peer", peer, "--space", json.dumps(space)]
    command += ["--out", str(folder), "--tune-seconds", str(bounds.tune_seconds)]
    command += ["--threads", str(bounds.threads), "--seed", str(bounds.seed)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(bounds.threads))
    log = folder / "log.txt"
    with log.open("a") as output:
        done = subprocess.run(command, env={**os.environ, **threads}, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise RuntimeError(f"{peer} failed; its last words in {log}: {_last_line(log)}")


def _digest(peer: str, space: Space, bounds: Bounds) -> str:
    said = json.dumps([peer, space, bounds.tune_seconds, bounds.seed], sort_keys=True)
    return hashlib.blake2b(said.encode() + LOCK.read_bytes(), digest_size=6).hexdigest()


def _spaces() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(SPACES.read_text())
    return found


def _last_line(path: Path) -> str:
    lines = path.read_text().strip().splitlines()
    return lines[-1] if lines else "none"
