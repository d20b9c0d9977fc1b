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
from training.evaluation.intervals import Estimate
from training.evaluation.paired_comparison import BASELINES, Difference, differences
from training.evaluation.report import RANDOM
from training.evaluation.segments import protocol_of
from training.models.contract import ModelConfig, RuntimeOptions
from training.models.registry import family_class, is_blend
from training.tracking.provenance import code_version
from training.train import MeasuredModel, measure_again, measure_family

log = structlog.get_logger(__name__)

PERSONAL = ("collaborative", "content-based", "deep-learning")
"""What a blend blends."""
FAMILIES = (*BASELINES, *PERSONAL, "hybrid")
KEY_FILE = "key.json"
UNFINISHED = ".unfinished"
"""Ends the name of a folder with the checkpoints of a fit that has not come to its end."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Record):
    """One model on one segment (`training.evaluation.segments`)."""

    model: str
    segment: str
    metrics: dict[str, Estimate]
    fit_seconds: float
    recommend_seconds: float  # per 1,000 users: scoring, masking and cutting the lists
    peak_mb: float  # highest resident memory of the process during the fits


class Skipped(_Record):
    model: str
    reason: str


class Comparison(_Record):
    """What `python -m training evaluate` writes."""

    protocol: str
    split_hash: str
    seed: int
    results: list[Row]
    skipped: list[Skipped]
    differences: list[Difference]


class Watcher(Protocol):
    """Is told how far the work is."""

    def start(self, family: str) -> None: ...

    def stepped(self, step: int, total: int, figure: float | None) -> None: ...

    def answered(self, done: int, total: int) -> None: ...

    def end(self, family: str, outcome: MeasuredModel | Skipped) -> None: ...


@dataclass(frozen=True)
class Field:
    """What families are measured on, and how."""

    split: Split
    options: RuntimeOptions
    has_metadata: bool = True
    configs: Path | None = None  # files <family>.yaml that win over `configs/models`
    keep: Path | None = None  # where measured models lie for the next run with the same split and configuration


def measure_families(families: Sequence[str], field: Field, watcher: Watcher) -> Iterator[MeasuredModel | Skipped]:
    """The families in this order, blends last; the components of a blend are fitted even where nobody asked for them.

    A family whose fit raises ValueError or MemoryError is skipped with the words of the error. Any other exception is
    a mistake of the code: it is logged with its traceback, and the family is skipped with it.

    Raises:
        KeyError: a name of no family.
    """
    configs = {family: load_config(family, folder=field.configs) for family in families}
    blends = [family for family in families if is_blend(family)]
    others = [family for family in families if family not in blends]
    components: dict[str, MeasuredModel] = {}
    unasked = [family for family in PERSONAL if blends and family not in others]
    for family in [*others, *unasked]:
        config = configs.get(family) or load_config(family, folder=field.configs)
        outcome = _measure(family, config, field, {}, watcher)
        if family in PERSONAL and isinstance(outcome, MeasuredModel):
            components[family] = outcome
        if family in others:
            yield outcome
    for family in blends:
        yield _measure(family, configs[family], field, components, watcher)


def as_comparison(split: Split, seed: int, outcomes: Sequence[MeasuredModel | Skipped]) -> Comparison:
    """What was found, in the form that is written and printed. The figures of a random order are left out."""
    models = [outcome for outcome in outcomes if isinstance(outcome, MeasuredModel)]
    return Comparison(
        protocol=protocol_of(split),
        split_hash=split.hash,
        seed=seed,
        results=[
            Row(
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
        skipped=[outcome for outcome in outcomes if isinstance(outcome, Skipped)],
        differences=differences(split, models, seed),
    )


def _measure(
    family: str, config: ModelConfig, field: Field, components: Mapping[str, MeasuredModel], watcher: Watcher
) -> MeasuredModel | Skipped:
    watcher.start(family)
    outcome: MeasuredModel | Skipped
    try:
        if family == "content-based" and not field.has_metadata:
            raise ValueError("it reads metadata of items, and none was given (--items)")
        if is_blend(family) and not components:
            raise ValueError("none of the families it blends could be fitted")
        outcome = _kept_or_new(family, config, field, components, watcher)
    except (ValueError, MemoryError) as error:
        outcome = Skipped(model=family, reason=str(error) or type(error).__name__)
    except Exception as error:  # the other families are worth their hours, and the reason reaches the reader
        log.exception("a family failed", family=family)
        outcome = Skipped(model=family, reason=f"failed with {type(error).__name__}: {error}")
    watcher.end(family, outcome)
    return outcome


def _kept_or_new(
    family: str, config: ModelConfig, field: Field, components: Mapping[str, MeasuredModel], watcher: Watcher
) -> MeasuredModel:
    blended = dict(components) if is_blend(family) else {}

    def fresh(workdir: Path | None) -> MeasuredModel:
        return measure_family(
            family,
            field.split,
            options=replace(field.options, progress=watcher.stepped, workdir=workdir),
            config=config,
            components=blended,
            tick=watcher.answered,
        )

    if field.keep is None:
        return fresh(None)
    key = _key(family, config, field, blended)
    folder = field.keep / f"{family}-{_digest(key)}"
    if (folder / KEY_FILE).exists():
        return measure_again(MeasuredModel.load(folder, blended), field.split, watcher.answered)
    checkpoints = folder.with_suffix(UNFINISHED)
    found = fresh(checkpoints)
    field.keep.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=field.keep) as work:
        found.save(Path(work) / "model")
        (Path(work) / "model" / KEY_FILE).write_text(json.dumps(key, indent=2))
        (Path(work) / "model").rename(folder)
    shutil.rmtree(checkpoints, ignore_errors=True)  # few families write any
    return found


def _key(family: str, config: ModelConfig, field: Field, components: Mapping[str, MeasuredModel]) -> dict[str, Any]:
    """What decides what a fit finds."""
    return {
        **_recipe(family, config),
        "split_hash": field.split.hash,
        "seed": field.options.seed,
        "max_seconds": field.options.max_seconds,
        "components": {name: _recipe(name, one.config) for name, one in sorted(components.items())},
    }


def _recipe(family: str, config: ModelConfig) -> dict[str, Any]:
    code = code_version(measure_family.__module__, family_class(family).__module__)
    return {"family": family, "config": config.model_dump(mode="json"), "code": code}


def _digest(key: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=6).hexdigest()
