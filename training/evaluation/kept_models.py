"""Keeps evaluated models in a folder, so that a later run loads them instead of fitting them again."""

import json
import shutil
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from training.data.splits import Split
from training.evaluation.code_version import code_version
from training.evaluation.rankings import ProgressCallback
from training.models.contract import ModelConfig, RuntimeOptions
from training.models.registry import family_class
from training.train import EvaluatedModel, evaluate_family, reevaluate

KEY_FILE = "key.json"
UNFINISHED = ".unfinished"
"""Suffix of the folder with the checkpoints of a fit that has not ended."""


def kept_or_new(
    family: str,
    config: ModelConfig,
    split: Split,
    options: RuntimeOptions,
    base_models: Mapping[str, EvaluatedModel],
    *,
    keep: Path,
    evaluate: Callable[[Path], EvaluatedModel],
    on_progress: ProgressCallback,
) -> EvaluatedModel:
    """The model that was kept for the same key, with new rankings and metrics; else a new model, which is then kept.

    The key holds everything that decides the outcome of a fit: family, configuration, code, split, seed, the bound on
    time, and the same of the base models.

    Args:
        family, config, split, options, base_models: of the evaluation.
        keep: the folder of kept models.
        evaluate: fits and evaluates a new model, with its checkpoints in the given folder.
        on_progress: called while a kept model is ranked again.
    """
    key = {
        **_recipe(family, config),
        "split_hash": split.hash,
        "seed": options.seed,
        "max_seconds": options.max_seconds,
        "base_models": {name: _recipe(name, model.config) for name, model in sorted(base_models.items())},
    }
    digest = blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=6).hexdigest()
    folder = keep / f"{family}-{digest}"
    if (folder / KEY_FILE).exists():
        return reevaluate(EvaluatedModel.load(folder, base_models), split, on_progress)
    checkpoints = folder.with_suffix(UNFINISHED)
    model = evaluate(checkpoints)
    keep.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=keep) as work:
        model.save(Path(work) / "model")
        (Path(work) / "model" / KEY_FILE).write_text(json.dumps(key, indent=2))
        (Path(work) / "model").rename(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)  # few families write any
    return model


def _recipe(family: str, config: ModelConfig) -> dict[str, Any]:
    code = code_version(evaluate_family.__module__, family_class(family).__module__)
    return {"family": family, "config": config.model_dump(mode="json"), "code": code}
