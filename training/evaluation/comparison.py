"""Several families evaluated on one split, each with its own report. A family that fails is skipped with a reason."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog
from pydantic import BaseModel, ConfigDict

from training.config import config_for
from training.data.profile import DataProfile
from training.data.splits import Split
from training.evaluation.intervals import Estimate, mean_estimates
from training.evaluation.kept_models import kept_or_new
from training.evaluation.paired_comparison import BASELINES, PairedComparison, compare_families
from training.evaluation.rankings import rank_test_queries
from training.evaluation.report import RANDOM
from training.evaluation.segments import protocol_of
from training.models.contract import ModelConfig, RuntimeOptions
from training.models.registry import is_ensemble
from training.train import EvaluatedModel, evaluate_family
from training.tuning.shared_search import FamilySearch, SharedSearch

log = structlog.get_logger(__name__)

ENSEMBLE_MEMBERS = ("collaborative", "content-based", "deep-learning")
"""Base models of an ensemble."""
WITHOUT_REFIT_METRICS = ("ndcg@10", "hit_rate@10", "recall@10", "mrr")
N_RESAMPLES = 500
"""Of the bootstrap intervals of these."""
FAMILIES = (*BASELINES, *ENSEMBLE_MEMBERS, "hybrid")


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
    """A family that has no figures, and why."""

    model: str
    reason: str


class FamilyWithoutRefit(_Record):
    """What a family reaches on the test events of leave-one-out without a refit on the validation events.

    Most published figures are taken so. The queries and their histories are the same, validation events included.
    """

    model: str
    metrics: dict[str, Estimate]


class Comparison(_Record):
    """What `python -m training evaluate` writes."""

    protocol: str
    split_hash: str
    seed: int
    results: list[ComparisonRow]
    skipped: list[SkippedFamily]
    paired_comparisons: list[PairedComparison]
    searches: list[FamilySearch] = []
    without_refit: list[FamilyWithoutRefit] = []


class ProgressListener(Protocol):
    """Called while families are evaluated."""

    def family_started(self, family: str) -> None: ...

    def step_ended(self, step: int, total: int, figure: float | None) -> None:
        """A step of a long fit, such as an epoch. figure: on held-out data; None where the family measures none."""

    def queries_ranked(self, done: int, total: int) -> None: ...

    def search_started(self, family: str) -> None: ...

    def search_ended(self, found: FamilySearch) -> None: ...

    def family_ended(self, family: str, outcome: EvaluatedModel | SkippedFamily) -> None: ...


@dataclass(frozen=True)
class EvaluationSetup:
    """What families are evaluated on, and how."""

    split: Split
    options: RuntimeOptions
    has_metadata: bool = True
    configs: Path | None = None  # folder whose <family>.yaml files win over the defaults for the data
    keep: Path | None = None  # folder of evaluated models, which a later run loads
    search: SharedSearch | None = None  # looks for better configurations before each family is evaluated


def evaluate_families(
    families: Sequence[str], setup: EvaluationSetup, progress: ProgressListener
) -> Iterator[EvaluatedModel | SkippedFamily]:
    """Evaluate the families in this order, with ensembles last.

    The base models of an ensemble are fitted even where they are not among the families, but they are not returned
    then. A family whose fit raises ValueError or MemoryError is skipped with the message of the error. Any other
    exception is a bug: it is logged with its traceback, and the family is skipped too, so that the others still run.

    Raises:
        KeyError: a name of no family.
    """
    profile = DataProfile.of(setup.split.train)
    configs = {family: config_for(family, profile, folder=setup.configs) for family in families}
    ensembles = [family for family in families if is_ensemble(family)]
    others = [family for family in families if family not in ensembles]
    base_models: dict[str, EvaluatedModel] = {}
    additional = [family for family in ENSEMBLE_MEMBERS if ensembles and family not in others]
    left = len([*others, *additional, *ensembles])
    for family in [*others, *additional]:
        config = configs.get(family) or config_for(family, profile, folder=setup.configs)
        config = _searched(family, config, setup, {}, left, progress)
        left -= 1
        outcome = _evaluate(family, config, setup, {}, progress)
        if family in ENSEMBLE_MEMBERS and isinstance(outcome, EvaluatedModel):
            base_models[family] = outcome
        if family in others:
            yield outcome
    for family in ensembles:
        config = _searched(family, configs[family], setup, base_models, left, progress)
        left -= 1
        yield _evaluate(family, config, setup, base_models, progress)


def as_comparison(
    split: Split,
    seed: int,
    outcomes: Sequence[EvaluatedModel | SkippedFamily],
    searches: Sequence[FamilySearch] = (),
) -> Comparison:
    """The outcomes in the form that is written and printed. The figures of a random order are left out."""
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
        paired_comparisons=compare_families(split, models, seed),
        searches=list(searches),
        without_refit=[
            FamilyWithoutRefit(model=model.family, metrics=dict(model.without_refit))
            for model in models
            if model.without_refit is not None
        ],
    )


def _searched(
    family: str,
    config: ModelConfig,
    setup: EvaluationSetup,
    base_models: Mapping[str, EvaluatedModel],
    left: int,
    progress: ProgressListener,
) -> ModelConfig:
    """What the family is evaluated with. left: families that share the budget of the searches, this one included."""
    if setup.search is None or _problem(family, setup, base_models):
        return config
    progress.search_started(family)
    found = setup.search.configuration(family, config, {name: one.config for name, one in base_models.items()}, left)
    progress.search_ended(setup.search.results[-1])
    return found


def _problem(family: str, setup: EvaluationSetup, base_models: Mapping[str, EvaluatedModel]) -> str:
    """Why the family cannot be evaluated on these data; empty where it can."""
    if family == "content-based" and not setup.has_metadata:
        return "it reads metadata of items, and none was given (--items)"
    if is_ensemble(family) and not base_models:
        return "none of its base models could be fitted"
    return ""


def _evaluate(
    family: str,
    config: ModelConfig,
    setup: EvaluationSetup,
    base_models: Mapping[str, EvaluatedModel],
    progress: ProgressListener,
) -> EvaluatedModel | SkippedFamily:
    progress.family_started(family)
    outcome: EvaluatedModel | SkippedFamily
    try:
        if problem := _problem(family, setup, base_models):
            raise ValueError(problem)
        outcome = _evaluate_or_load(family, config, setup, base_models if is_ensemble(family) else {}, progress)
        if setup.split.known_until is None and len(setup.split.test):
            outcome = replace(outcome, without_refit=_without_refit(outcome, setup.split))
    except (ValueError, MemoryError) as error:
        outcome = SkippedFamily(model=family, reason=str(error) or type(error).__name__)
    except Exception as error:
        log.exception("evaluation of a family failed", family=family)
        outcome = SkippedFamily(model=family, reason=f"failed with {type(error).__name__}: {error}")
    progress.family_ended(family, outcome)
    return outcome


def _without_refit(found: EvaluatedModel, split: Split) -> dict[str, Estimate]:
    """Metrics of the model that knows no validation event, over all test queries."""
    per_user = rank_test_queries(found.validated, split).per_user
    return mean_estimates({name: per_user[name] for name in WITHOUT_REFIT_METRICS}, N_RESAMPLES, found.seed)


def _evaluate_or_load(
    family: str,
    config: ModelConfig,
    setup: EvaluationSetup,
    base_models: Mapping[str, EvaluatedModel],
    progress: ProgressListener,
) -> EvaluatedModel:
    def evaluate(workdir: Path | None) -> EvaluatedModel:
        return evaluate_family(
            family,
            setup.split,
            options=replace(setup.options, progress=progress.step_ended, workdir=workdir),
            config=config,
            base_models=base_models,
            on_progress=progress.queries_ranked,
        )

    if setup.keep is None:
        return evaluate(None)
    return kept_or_new(
        family,
        config,
        setup.split,
        setup.options,
        base_models,
        keep=setup.keep,
        evaluate=evaluate,
        on_progress=progress.queries_ranked,
    )
