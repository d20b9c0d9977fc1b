"""Several families measured on one split, each with a report of its own; what cannot be measured says why."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import structlog
from pydantic import BaseModel, ConfigDict

from training.config import load_config
from training.data.splits import Split
from training.evaluation.code_version import code_version
from training.evaluation.intervals import Estimate
from training.evaluation.paired_comparison import BASELINES, PairedComparison, differences
from training.evaluation.report import RANDOM
from training.evaluation.segments import protocol_of
from training.models.contract import ModelConfig, RuntimeOptions
from training.models.registry import family_class, is_ensemble
from training.train import EvaluatedModel, evaluate_family, reevaluate

log = structlog.get_logger(__name__)

ENSEMBLE_MEMBERS = ("collaborative", "content-based", "deep-learning")
"""Base models of an ensemble."""
FAMILIES = (*BASELINES, *ENSEMBLE_MEMBERS, "hybrid")
KEY_FILE = "key.json"
UNFINISHED = ".unfinished"
"""Ends the name of a folder with the checkpoints of a fit that has not come to its end."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComparisonRow(_Record):
    """One model on one segment (`training.evaluation.segments`)."""

    model: str
    segment: str
    metrics: dict[str, Estimate]
    fit_seconds: float
    recommend_seconds: float  # per 1,000 users: scoring, masking and cutting the lists
    peak_mb: float  # highest resident memory of the process during the fits


class SkippedFamily(_Record):
    model: str
    reason: str


class Comparison(_Record):
    """What `python -m training evaluate` writes."""

    protocol: str
    split_hash: str
    seed: int
    results: list[ComparisonRow]
    skipped: list[SkippedFamily]
    differences: list[PairedComparison]


class ProgressListener(Protocol):
    """Is told how far the work is."""

    def start(self, family: str) -> None: ...

    def stepped(self, step: int, total: int, figure: float | None) -> None: ...

    def answered(self, done: int, total: int) -> None: ...

    def end(self, family: str, outcome: EvaluatedModel | SkippedFamily) -> None: ...


@dataclass(frozen=True)
class EvaluationSetup:
    """What families are measured on, and how."""

    split: Split
    options: RuntimeOptions
    has_metadata: bool = True
    configs: Path | None = None  # files <family>.yaml that win over `configs/models`
    keep: Path | None = None  # where measured models lie for the next run with the same split and configuration


def evaluate_families(
    families: Sequence[str], setup: EvaluationSetup, progress: ProgressListener
) -> Iterator[EvaluatedModel | SkippedFamily]:
    """The families in this order, ensembles last; an ensemble's base models are fitted even if nobody asked for them.

    A family whose fit raises ValueError or MemoryError is skipped with the words of the error. Any other exception is
    a mistake of the code: it is logged with its traceback, and the family is skipped with it.

    Raises:
        KeyError: a name of no family.
    """
    configs = {family: load_config(family, folder=setup.configs) for family in families}
    ensembles = [family for family in families if is_ensemble(family)]
    others = [family for family in families if family not in ensembles]
    base_models: dict[str, EvaluatedModel] = {}
    unasked = [family for family in ENSEMBLE_MEMBERS if ensembles and family not in others]
    for family in [*others, *unasked]:
        config = configs.get(family) or load_config(family, folder=setup.configs)
        outcome = _measure(family, config, setup, {}, progress)
        if family in ENSEMBLE_MEMBERS and isinstance(outcome, EvaluatedModel):
            base_models[family] = outcome
        if family in others:
            yield outcome
    for family in ensembles:
        yield _measure(family, configs[family], setup, base_models, progress)


def as_comparison(split: Split, seed: int, outcomes: Sequence[EvaluatedModel | SkippedFamily]) -> Comparison:
    """What was found, in the form that is written and printed. The figures of a random order are left out."""
    models = [outcome for outcome in outcomes if isinstance(outcome, EvaluatedModel)]
    return Comparison(
        protocol=protocol_of(split),
        split_hash=split.hash,
        seed=seed,
        results=[
            ComparisonRow(
                model=result.model,
                segment=result.segment,
                metrics=result.metrics,
                fit_seconds=outcome.usage.seconds,
                recommend_seconds=result.recommend_seconds or 0.0,
                peak_mb=outcome.usage.peak_mb,
            )
            for outcome in models
            for result in outcome.report.results
            if result.model != RANDOM
        ],
        skipped=[outcome for outcome in outcomes if isinstance(outcome, SkippedFamily)],
        differences=differences(split, models, seed),
    )


def _measure(
    family: str,
    config: ModelConfig,
    setup: EvaluationSetup,
    base_models: Mapping[str, EvaluatedModel],
    progress: ProgressListener,
) -> EvaluatedModel | SkippedFamily:
    progress.start(family)
    outcome: EvaluatedModel | SkippedFamily
    try:
        if family == "content-based" and not setup.has_metadata:
            raise ValueError("it reads metadata of items, and none was given (--items)")
        if is_ensemble(family) and not base_models:
            raise ValueError("none of the families it combines could be fitted")
        outcome = _kept_or_new(family, config, setup, base_models, progress)
    except (ValueError, MemoryError) as error:
        outcome = SkippedFamily(model=family, reason=str(error) or type(error).__name__)
    except Exception as error:  # the other families are worth their hours, and the reason reaches the reader
        log.exception("a family failed", family=family)
        outcome = SkippedFamily(model=family, reason=f"failed with {type(error).__name__}: {error}")
    progress.end(family, outcome)
    return outcome


def _kept_or_new(
    family: str,
    config: ModelConfig,
    setup: EvaluationSetup,
    base_models: Mapping[str, EvaluatedModel],
    progress: ProgressListener,
) -> EvaluatedModel:
    blended = dict(base_models) if is_ensemble(family) else {}

    def fresh(workdir: Path | None) -> EvaluatedModel:
        return evaluate_family(
            family,
            setup.split,
            options=replace(setup.options, progress=progress.stepped, workdir=workdir),
            config=config,
            base_models=blended,
            tick=progress.answered,
        )

    if setup.keep is None:
        return fresh(None)
    key = _key(family, config, setup, blended)
    folder = setup.keep / f"{family}-{_digest(key)}"
    if (folder / KEY_FILE).exists():
        return reevaluate(EvaluatedModel.load(folder, blended), setup.split, progress.answered)
    checkpoints = folder.with_suffix(UNFINISHED)
    found = fresh(checkpoints)
    setup.keep.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=setup.keep) as work:
        found.save(Path(work) / "model")
        (Path(work) / "model" / KEY_FILE).write_text(json.dumps(key, indent=2))
        (Path(work) / "model").rename(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)  # few families write any
    return found


def _key(
    family: str, config: ModelConfig, setup: EvaluationSetup, base_models: Mapping[str, EvaluatedModel]
) -> dict[str, Any]:
    """What decides what a fit finds."""
    return {
        **_recipe(family, config),
        "split_hash": setup.split.hash,
        "seed": setup.options.seed,
        "max_seconds": setup.options.max_seconds,
        "components": {name: _recipe(name, one.config) for name, one in sorted(base_models.items())},
    }


def _recipe(family: str, config: ModelConfig) -> dict[str, Any]:
    code = code_version(evaluate_family.__module__, family_class(family).__module__)
    return {"family": family, "config": config.model_dump(mode="json"), "code": code}


def _digest(key: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=6).hexdigest()
