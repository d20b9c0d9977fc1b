"""Our families on one split, through `python -m training evaluate`: what anybody can run is what is reported."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tests.benchmarks.quality.datasets import Files, Run
from training.data.splits import Split

FAMILIES = ("popularity", "item-knn", "collaborative", "content-based", "deep-learning", "hybrid")

NOT_YET = "not measured yet"

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
    fit: bool = True,
) -> Comparison:
    """Figures of these families, taken from earlier runs on the same split where those have them.

    Args:
        families: names of ours.
        run: the data set and the protocol.
        files_: of the data set.
        split: what the peers are measured on; the figures must be of the same.
        cache: keeps trained models and figures, so that an interrupted benchmark goes on.
        max_seconds: bounds the fits of each family.
        threads, seed: of the fits.
        earlier: files that `python -m training evaluate --out` wrote.
        fit: where not, only what was found before is told.

    Raises:
        RuntimeError: the command failed or measured on another split.
    """
    kept = cache / split.hash / "families.json"
    found = _rows(earlier, split)
    if not fit:
        found = {**_rows([kept] if kept.exists() else [], split), **found}
    missing = [family for family in families if family not in found]
    skipped = []
    if missing and fit:
        fresh = _evaluate(missing, run, files_, split, cache, max_seconds, threads, seed)
        skipped = fresh["skipped"]
        measured = _by_model(fresh["results"])
        found |= measured
        known = {**_rows([kept] if kept.exists() else [], split), **measured}
        kept.write_text(json.dumps({**fresh, "results": [row for rows in known.values() for row in rows]}))
    elif missing:
        skipped = [{"model": family, "reason": NOT_YET} for family in missing]
    return {"results": [row for family in families for row in found.get(family, [])], "skipped": skipped}


def configs_of(run: Run) -> Path | None:
    """The folder of what was chosen for this data set and protocol, or for the data set, or None.

    What is best of all users before one moment need not be what is best of each user's next event.
    """
    models = Path(str(files("configs"))) / "models"
    folders = (models / f"{run.dataset}-{run.protocol}", models / run.dataset)
    return next((folder for folder in folders if folder.is_dir()), None)


def _evaluate(
    families: Sequence[str],
    run: Run,
    files_: Files,
    split: Split,
    cache: Path,
    max_seconds: float,
    threads: int,
    seed: int,
) -> Comparison:
    folder = cache / split.hash
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "evaluated.json"
    command = [sys.executable, "-m", "training", "evaluate", "--interactions", str(files_.interactions)]
    command += ["--items", str(files_.items), "--protocol", run.protocol, "--exclude-seen", run.exclude_seen]
    command += ["--models", ",".join(families), "--max-seconds", str(max_seconds), "--threads", str(threads)]
    command += ["--seed", str(seed), "--out", str(out), "--keep", str(folder / "families")]
    tuned = configs_of(run)
    if tuned is not None:
        command += ["--configs", str(tuned)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"python -m training evaluate ended with {done.returncode} on {run.name}")
    fresh: Comparison = json.loads(out.read_text())
    if fresh["split_hash"] != split.hash:
        raise RuntimeError(f"{run.name}: families were measured on {fresh['split_hash']}, peers on {split.hash}")
    return fresh


def _rows(paths: Sequence[Path], split: Split) -> dict[str, list[dict[str, Any]]]:
    """Family -> its rows in the first of these files that is of the split and has any."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in map(json.loads, (path.read_text() for path in paths)):
        if one["split_hash"] == split.hash:
            fresh = _by_model(one["results"])
            found |= {model: rows for model, rows in fresh.items() if model not in found}
    return found


def _by_model(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Model -> its rows, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["model"], []).append(row)
    return found
