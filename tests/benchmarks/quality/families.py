"""Our families on one split, through `python -m training evaluate`: what anybody can run is what is reported."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tests.benchmarks.quality.datasets import Files, Run
from training.splits import Split

FAMILIES = ("popularity", "item-knn", "collaborative", "content-based", "deep-learning", "hybrid")

Comparison = dict[str, Any]
"""The JSON of `python -m training evaluate --out`."""


def measure_families(
    families: Sequence[str],
    run: Run,
    files_: Files,
    split: Split,
    cache: Path,
    *,
    max_seconds: float,
    threads: int,
    seed: int,
    earlier: Sequence[Path] = (),
) -> Comparison:
    """Figures of these families, taken from earlier runs on the same split where those have them.

    Args:
        families: names of ours.
        run: the data set and the protocol.
        files_: of the data set.
        split: what the peers are asked on; the figures must be of the same.
        cache: keeps trained models, so that an interrupted benchmark goes on.
        max_seconds: bounds the fits of each family.
        threads, seed: of the fits.
        earlier: files that `python -m training evaluate --out` wrote.

    Raises:
        RuntimeError: the command failed or measured on another split.
    """
    found = [one for path in earlier if (one := json.loads(path.read_text()))["split_hash"] == split.hash]
    results = [row for one in found for row in one["results"] if row["model"] in families]
    known = {row["model"] for row in results}
    skipped: list[dict[str, str]] = []
    if missing := [family for family in families if family not in known]:
        out = cache / split.hash / "families.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "training", "evaluate", "--interactions", str(files_.interactions)]
        command += ["--items", str(files_.items), "--protocol", run.protocol, "--exclude-seen", run.exclude_seen]
        command += ["--models", ",".join(missing), "--max-seconds", str(max_seconds), "--threads", str(threads)]
        command += ["--seed", str(seed), "--out", str(out), "--keep", str(cache / split.hash / "families")]
        tuned = Path(str(files("configs"))) / "models" / run.dataset
        if tuned.is_dir():
            command += ["--configs", str(tuned)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RuntimeError(f"python -m training evaluate ended with {done.returncode} on {run.name}")
        fresh = json.loads(out.read_text())
        if fresh["split_hash"] != split.hash:
            raise RuntimeError(f"{run.name}: families were measured on {fresh['split_hash']}, peers on {split.hash}")
        results += fresh["results"]
        skipped = fresh["skipped"]
    return {"results": results, "skipped": skipped}
