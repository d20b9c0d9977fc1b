"""Training of one family on one snapshot: fit, evaluate, and refit for serving.

A family is fitted three times, each time on more of the data:

    validated  on the events before the validation window; an ensemble learns its weights with this one
    evaluated  on the events before the test window; every figure of the report is of this one
    model      on all events; this one serves

A linear family fits anew each time. The sequential family fits once, with early stopping, and the later fits continue
from it. `evaluated` is made by the same steps as `model`, one window earlier, so the report judges the procedure
that made the served model. The served model itself is never scored on the test window, because it has learned from it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import structlog
from threadpoolctl import threadpool_limits

from feature_store.interaction_types import SeenPolicy
from training.config import config_for
from training.data.dataset import Dataset
from training.data.profile import DataProfile
from training.data.splits import Split, temporal_split
from training.evaluation.calibration import SCORE_MAP_USERS, ScoreMap, fit_score_map
from training.evaluation.diagnostics import Diagnostics, diagnose
from training.evaluation.intervals import Estimate
from training.evaluation.rankings import HoldoutRankings, ProgressCallback, rank_test_queries
from training.evaluation.report import EvaluationReport, evaluate_model
from training.forecast import Forecast, PastTraining, PlannedFit, forecast
from training.memory_limit import check_memory
from training.models.contract import Ensemble, ModelConfig, Recommender, RuntimeOptions
from training.models.registry import family_class, load_model, save_model
from training.models.workload import DataSizes
from training.resource_usage import ResourceUsage, measure_usage

log = structlog.get_logger(__name__)

FIT_PROTOCOL = (
    "the evaluated model was fitted on the events before the test window, the served one on all events "
    "with the same hyper-parameters"
)
_REPORT_FILE = "report.json"
FIRST_FIT_SHARE, _REFIT_SHARE = 0.6, 0.2
"""Shares of `max_seconds` for the first fit and for each of the two refits."""


@dataclass(frozen=True)
class EvaluatedModel:
    """The two models that a configuration is judged by, with the report on it."""

    validated: Recommender
    evaluated: Recommender
    report: EvaluationReport
    seed: int
    usage: ResourceUsage  # of all fits together
    rankings: HoldoutRankings | None = field(default=None, kw_only=True, repr=False)
    """Of the evaluated model for the test queries; None where the model was loaded or the test window has no query."""
    without_refit: Mapping[str, Estimate] | None = field(default=None, kw_only=True, repr=False)
    """Metrics of `validated` on the test queries, where somebody measured them."""

    @property
    def family(self) -> str:
        return self.evaluated.family

    @property
    def config(self) -> ModelConfig:
        return self.evaluated.config

    def save(self, folder: Path) -> None:
        """Write the models and the report, so that another process can load them."""
        save_model(self.validated, folder / "validated")
        save_model(self.evaluated, folder / "evaluated")
        facts = {
            "report": self.report.model_dump(mode="json"),
            "seed": self.seed,
            "usage": asdict(self.usage),
        }
        (folder / _REPORT_FILE).write_text(json.dumps(facts))

    @classmethod
    def load(cls, folder: Path, base_models: Mapping[str, "EvaluatedModel"] | None = None) -> Self:
        """What `save` wrote. base_models: those of an ensemble."""
        return cls(**_load(folder, base_models or {}))


@dataclass(frozen=True)
class TrainedModel(EvaluatedModel):
    """The served model, with the two models that it was judged by."""

    model: Recommender
    score_map: ScoreMap
    diagnostics: Diagnostics | None = field(default=None, kw_only=True, repr=False)
    """What plots and the model card show beside the report; None where the model was loaded."""

    def save_served(self, folder: Path) -> None:
        """Write the folder that a registry keeps and a release serves: the model and its score map."""
        save_model(self.model, folder)
        self.score_map.save(folder)

    def save(self, folder: Path) -> None:
        super().save(folder)
        self.save_served(folder / "model")

    @classmethod
    def load(cls, folder: Path, base_models: Mapping[str, EvaluatedModel] | None = None) -> Self:
        """What `save` wrote. base_models: those of an ensemble, which were trained too."""
        served = {name: one.model for name, one in (base_models or {}).items() if isinstance(one, TrainedModel)}
        return cls(
            **_load(folder, base_models or {}),
            model=load_model(folder / "model", served),
            score_map=ScoreMap.load(folder / "model"),
        )


def train_family(
    family: str,
    dataset: Dataset,
    *,
    options: RuntimeOptions,
    config: ModelConfig | None = None,
    base_models: Mapping[str, TrainedModel] | None = None,
    exclude_seen: SeenPolicy = "all",
    split: Split | None = None,
    past: Sequence[PastTraining] = (),
) -> TrainedModel:
    """Fit a family, measure it on the held-out window and refit it for serving.

    Args:
        family: a name of `registry.families()`.
        dataset: a whole snapshot.
        options: `max_seconds` bounds the three fits together.
        config: hyper-parameters; default the family's for such data (`training.config.config_for`).
        base_models: the models that the ensemble weighs, trained on the same data set and split.
        exclude_seen: the tenant's `excludeSeen`, which decides what the metrics mask.
        split: where the caller has made `temporal_split(dataset, exclude_seen)` already.
        past: earlier trainings of the family on this machine, which correct the forecast.

    Raises:
        KeyError: no such family.
        ValueError: the data cannot be split in time, or are not enough for the family.
        InsufficientMemoryError: the fits are expected to take more memory than they may.
    """
    split = split or temporal_split(dataset, exclude_seen)
    dataset = dataset.served_by(split.mask)
    config = config or config_for(family, DataProfile.of(split.train))
    expected = _forecast(family, config, split, options, base_models or {}, past, dataset)
    found = _fit_and_evaluate(family, config, split, options, base_models or {}, expected)
    with measure_usage() as usage, threadpool_limits(options.threads):
        if isinstance(found.evaluated, Ensemble):
            served = {name: one.model for name, one in (base_models or {}).items()}
            model: Recommender = found.evaluated.with_refitted(served, dataset)
        else:
            model = found.evaluated.refit(dataset, _share(options, _REFIT_SHARE))
    return TrainedModel(
        validated=found.validated,
        evaluated=found.evaluated,
        report=found.report,
        seed=options.seed,
        usage=found.usage + usage.result,
        model=model,
        score_map=fit_score_map(model, dataset.sampled_histories(SCORE_MAP_USERS, options.seed)),
        rankings=found.rankings,
        diagnostics=diagnose(found.evaluated, dataset, split, found.rankings, options.seed),
    )


def evaluate_family(
    family: str,
    split: Split,
    *,
    options: RuntimeOptions,
    config: ModelConfig | None = None,
    base_models: Mapping[str, EvaluatedModel] | None = None,
    on_progress: ProgressCallback | None = None,
) -> EvaluatedModel:
    """Fit a family on the events before the test window and measure it on that window.

    The command `python -m training evaluate` and the first part of a training call this. So does the comparison with
    an earlier champion on a new window: the champion's weights may have learned from the window's events, but its
    hyper-parameters have not, so a new fit with them leaks nothing.

    Args:
        family: a name of `registry.families()`.
        split: the window.
        options: `max_seconds` bounds the fits together.
        config: hyper-parameters; default the family's for such data (`training.config.config_for`).
        base_models: the models that the ensemble weighs, measured on the same split.
        on_progress: called while the test queries are ranked.

    Raises:
        KeyError: no such family.
        ValueError: the data are not enough for the family.
        InsufficientMemoryError: the fits are expected to take more memory than they may.
    """
    config = config or config_for(family, DataProfile.of(split.train))
    expected = _forecast(family, config, split, options, base_models or {})
    return _fit_and_evaluate(family, config, split, options, base_models or {}, expected, on_progress)


def _forecast(
    family: str,
    config: ModelConfig,
    split: Split,
    options: RuntimeOptions,
    base_models: Mapping[str, EvaluatedModel],
    past: Sequence[PastTraining] = (),
    served: Dataset | None = None,
) -> Forecast:
    """What the fits are expected to take, logged before they start. Raises InsufficientMemoryError for too much memory.

    served: the whole snapshot, where a model is fitted on it.
    """
    data = [(split.train, FIRST_FIT_SHARE), (split.before_test, _REFIT_SHARE)]
    data += [] if served is None else [(served, _REFIT_SHARE)]
    queries = len(split.validation)
    fits = [PlannedFit(DataSizes.of(dataset, queries), share * options.max_seconds) for dataset, share in data]
    fitted = {name: one.validated for name, one in base_models.items()}
    found = forecast(family, config, fits, options.threads, fitted, past)
    log.info("forecast", family=family, **found.notes())
    check_memory(family, found, fits[-1].sizes, options)
    return found


def _fit_and_evaluate(
    family: str,
    config: ModelConfig,
    split: Split,
    options: RuntimeOptions,
    base_models: Mapping[str, EvaluatedModel],
    expected: Forecast,
    on_progress: ProgressCallback | None = None,
) -> EvaluatedModel:
    with measure_usage() as usage, threadpool_limits(options.threads):
        validated, evaluated = _fit_before_test(family, config, split, options, base_models)
    log.info("fitted", family=family, **asdict(usage.result))
    rankings = _rank_test_queries(evaluated, split, on_progress)
    report = _report(evaluated, split, options, usage.result, rankings)
    return EvaluatedModel(
        validated,
        evaluated,
        report.model_copy(update={"notes": {**report.notes, **expected.notes()}}),
        options.seed,
        usage.result,
        rankings=rankings,
    )


def reevaluate(found: EvaluatedModel, split: Split, on_progress: ProgressCallback | None = None) -> EvaluatedModel:
    """The same models on the same split, measured by today's definitions. The cost and notes of the fits stay."""
    options = RuntimeOptions(seed=found.seed)
    rankings = _rank_test_queries(found.evaluated, split, on_progress)
    report = _report(found.evaluated, split, options, found.usage, rankings)
    return replace(found, report=report.model_copy(update={"notes": found.report.notes}), rankings=rankings)


def _fit_before_test(
    family: str, config: ModelConfig, split: Split, options: RuntimeOptions, base_models: Mapping[str, EvaluatedModel]
) -> tuple[Recommender, Recommender]:
    """The model fitted before the validation window and the one fitted before the test window."""
    found = family_class(family)
    if not issubclass(found, Ensemble):
        validated = found(config).fit(split.train, _share(options, FIRST_FIT_SHARE))
        return validated, validated.refit(split.before_test, _share(options, _REFIT_SHARE))
    earlier = {name: one.validated for name, one in base_models.items()}
    if split.known_until is None:  # no time parts the windows, so the ensemble learns from the validation queries
        ensemble = found(config, earlier, queries=split.validation).fit(split.train, options)
    else:
        ensemble = found(config, earlier, split.known_until).fit(split.before_test, options)
    return ensemble, ensemble.with_refitted(
        {name: one.evaluated for name, one in base_models.items()}, split.before_test
    )


def _load(folder: Path, base_models: Mapping[str, EvaluatedModel]) -> dict[str, Any]:
    """The fields of `EvaluatedModel`, from the folder that its `save` wrote."""
    facts = json.loads((folder / _REPORT_FILE).read_text())
    stages = {
        stage: load_model(folder / stage, {name: getattr(one, stage) for name, one in base_models.items()})
        for stage in ("validated", "evaluated")
    }
    return {
        **stages,
        "report": EvaluationReport.model_validate(facts["report"]),
        "seed": facts["seed"],
        "usage": ResourceUsage(**facts["usage"]),
    }


def _rank_test_queries(
    evaluated: Recommender, split: Split, on_progress: ProgressCallback | None
) -> HoldoutRankings | None:
    return rank_test_queries(evaluated, split, on_progress=on_progress) if len(split.test) else None


def _report(
    evaluated: Recommender,
    split: Split,
    options: RuntimeOptions,
    usage: ResourceUsage,
    rankings: HoldoutRankings | None,
) -> EvaluationReport:
    notes = evaluated.record()
    if isinstance(evaluated, Ensemble):
        notes["kept_base_model"] = evaluated.kept_base_model
    report = evaluate_model(
        evaluated,
        split,
        seed=options.seed,
        fit_seconds=usage.seconds,
        peak_mb=usage.peak_mb,
        notes=notes,
        rankings=rankings,
    )
    return report.model_copy(update={"config": evaluated.config, "protocol": f"{report.protocol}; {FIT_PROTOCOL}"})


def _share(options: RuntimeOptions, share: float) -> RuntimeOptions:
    return replace(options, max_seconds=options.max_seconds * share)
