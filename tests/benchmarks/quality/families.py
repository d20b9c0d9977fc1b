"""Our families on one split, through `python -m training evaluate`: what anybody can run is what is reported."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.quality.datasets import Files, Run
from training.data.splits import Split

FAMILIES = ("popularity", "item-knn", "collaborative", "content-based", "deep-learning", "hybrid")

NOT_YET = "not measured yet"
LISTS = ("results", "searches", "without_refit")
"""What a comparison lists by model."""

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
    search_minutes: float | None = None,
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
        search_minutes: of a search before the fits, all families together; None: the defaults are measured.
        earlier: files that `python -m training evaluate --out` wrote.
        fit: where not, only what was found before is told.

    Returns:
        `results`, `skipped`, `searches` and `without_refit`, as `training.evaluation.comparison.Comparison` has them.

    Raises:
        RuntimeError: the command failed or measured on another split.
    """
    name = "defaults" if search_minutes is None else f"searched-{search_minutes:g}"
    kept = cache / split.hash / f"{name}.json"
    found = _by_family(earlier, split)
    if not fit:
        found = {**_by_family([kept] if kept.exists() else [], split), **found}
    missing = [family for family in families if family not in found]
    skipped = []
    if missing and fit:
        fresh = _evaluate(missing, run, files_, split, cache, max_seconds, threads, seed, search_minutes)
        skipped = fresh["skipped"]
        measured = _of_families(fresh)
        found |= measured
        known = {**_by_family([kept] if kept.exists() else [], split), **measured}
        kept.write_text(json.dumps({**fresh, **_together(known.values())}))
    elif missing:
        skipped = [{"model": family, "reason": NOT_YET} for family in missing]
    return {**_together(found[family] for family in families if family in found), "skipped": skipped}


def _evaluate(
    families: Sequence[str],
    run: Run,
    files_: Files,
    split: Split,
    cache: Path,
    max_seconds: float,
    threads: int,
    seed: int,
    search_minutes: float | None,
) -> Comparison:
    folder = cache / split.hash
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "evaluated.json"
    command = [sys.executable, "-m", "training", "evaluate", "--interactions", str(files_.interactions)]
    command += ["--items", str(files_.items), "--protocol", run.protocol, "--exclude-seen", run.exclude_seen]
    command += ["--models", ",".join(families), "--max-seconds", str(max_seconds), "--threads", str(threads)]
    command += ["--seed", str(seed), "--out", str(out), "--keep", str(folder / "families")]
    if search_minutes is not None:
        command += ["--search", str(search_minutes)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"python -m training evaluate ended with {done.returncode} on {run.name}")
    fresh: Comparison = json.loads(out.read_text())
    if fresh["split_hash"] != split.hash:
        raise RuntimeError(f"{run.name}: families were measured on {fresh['split_hash']}, peers on {split.hash}")
    return fresh


def _by_family(paths: Sequence[Path], split: Split) -> dict[str, Comparison]:
    """Family -> what the first of these files that is of the split has of it."""
    found: dict[str, Comparison] = {}
    for one in map(json.loads, (path.read_text() for path in paths)):
        if one["split_hash"] == split.hash:
            found = {**_of_families(one), **found}
    return found


def _of_families(comparison: Comparison) -> dict[str, Comparison]:
    """Family -> its entries in each of LISTS, for every family with figures."""
    models = dict.fromkeys(row["model"] for row in comparison["results"])
    return {
        model: {name: [each for each in comparison.get(name, []) if each["model"] == model] for name in LISTS}
        for model in models
    }


def _together(families: Iterable[Comparison]) -> Comparison:
    """The entries of all these families, by list."""
    listed = list(families)
    return {name: [each for one in listed for each in one[name]] for name in LISTS}
