"""Better hyper-parameters for one data set, by Optuna (Akiba et al., 2019), on the validation window alone."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import yaml

from training.data.splits import Split
from training.evaluation.rankings import rank_queries
from training.models.contract import Ensemble, ModelConfig, Recommender, RuntimeOptions
from training.tuning.ensembles import FitFunction
from training.tuning.results import COMPLETE, FAILED, METRIC, PRUNED, StudyResult, TrialResult
from training.tuning.search_space import SearchSpace

STARTUP_TRIALS = 8
"""Trials drawn at random before the sampler learns from them."""

TrialCallback = Callable[[TrialResult], None]
"""Called with the result of every trial when it has ended."""


def run_study(
    family: type[Recommender],
    split: Split,
    space: SearchSpace,
    base: ModelConfig,
    *,
    options: RuntimeOptions,
    minutes: float,
    trials: int | None = None,
    on_trial: TrialCallback = lambda trial: None,
    fit: FitFunction | None = None,
) -> StudyResult:
    """Search the space until the time is up; the configuration that does best on the validation window wins.

    Models are fitted on `split.train` and judged on `split.validation`. The test window is not looked at. The first
    trial is `base`, so that the result is never worse than `base` on the validation window. A fit that reports its
    progress is pruned where it does worse than the median of the earlier trials at the same step.

    Args:
        family: the family to tune.
        split: of the data set to tune for.
        space: the hyper-parameters to search.
        base: the configuration that the search begins with. It gives all values that the space does not name.
        options: `seed` of sampler and fits; `max_seconds` bounds one fit.
        minutes: no trial begins after this time, and the last one is bounded by what is left of it.
        trials: the largest number of trials; None: as many as the time allows.
        on_trial: called with every trial when it has ended.
        fit: how a trial fits its model. An ensemble needs `training.tuning.ensembles.ensemble_fit`.

    Raises:
        ValueError: the window has no queries, no trial completed, or an ensemble comes without `fit`.
    """
    if not len(split.validation):
        raise ValueError("the validation window holds no query to tune on")
    if fit is None:
        if issubclass(family, Ensemble):
            raise ValueError(f"{family.family} is an ensemble: pass ensemble_fit, which fits its base models")
        fit = _plain_fit(family, split)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began = time.perf_counter()
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=options.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
    )
    study.enqueue_trial(space.encode(base))
    results: list[TrialResult] = []

    def objective(trial: optuna.Trial) -> float:
        left = max(1.0, 60 * minutes - (time.perf_counter() - began))
        bounded = replace(options, max_seconds=min(options.max_seconds, left))
        # The first trial is `base` itself, even where `base` lies outside of the space.
        result = _run_trial(fit, split, trial, lambda: space.suggest(trial, base), bounded, None if results else base)
        results.append(result)
        on_trial(result)
        if result.value is None:
            # A failed trial counts as pruned, because the sampler forgets failures and would suggest them again.
            raise optuna.TrialPruned
        return result.value

    study.optimize(objective, n_trials=trials, timeout=60 * minutes)
    complete = [(each.value, -each.number, each.config) for each in results if each.value is not None and each.config]
    if not complete:
        reasons = "; ".join(dict.fromkeys(each.reason for each in results))
        raise ValueError(f"no trial of {family.family} completed: {reasons or 'there was no time for one'}")
    value, number, config = max(complete, key=lambda each: each[:2])  # of equal values the earlier trial
    return StudyResult(-number, config, value, tuple(results))


def _plain_fit(family: type[Recommender], split: Split) -> FitFunction:
    return lambda config, options: family(config).fit(split.train, options)


def _run_trial(
    fit: FitFunction,
    split: Split,
    trial: optuna.Trial,
    suggest: Callable[[], ModelConfig],
    options: RuntimeOptions,
    given: ModelConfig | None,
) -> TrialResult:
    """Fit and judge one configuration.

    suggest: draws a configuration from the space, which every trial has to do; it may raise ValueError.
    given: the configuration to take in place of the suggested one.
    """
    began = time.perf_counter()
    curve: list[float] = []

    def progress(step: int, total: int, figure: float | None) -> None:
        if figure is None:
            return
        curve.append(figure)
        trial.report(figure, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    config, value, per_query, state, reason = None, None, None, COMPLETE, ""
    try:
        config = suggest()
        config = given or config
        model = fit(config, replace(options, progress=progress))
        per_query = rank_queries(model, split.validation).per_user[METRIC]
        value = float(np.nanmean(per_query))
    except optuna.TrialPruned:
        state, reason = PRUNED, f"worse than the median after {len(curve)} steps"
    except (ValueError, ArithmeticError) as error:
        state, reason = FAILED, " ".join(str(error).split())
    seconds = time.perf_counter() - began
    return TrialResult(trial.number, config, value, tuple(curve), state, reason, seconds, per_query)


def as_yaml(family: str, split: Split, result: StudyResult, seed: int) -> str:
    """The best configuration as a file of `configs/models`, with a comment that says where it comes from."""
    improvement = result.improvement
    compared = ""
    if improvement is not None:
        low_to_high = f"{improvement.low:+.4f} to {improvement.high:+.4f}"
        compared = f"# {improvement.mean:+.4f} ({low_to_high}) over the configuration that it began with;\n"
    comment = (
        f"# {family}: {METRIC} {result.value:.4f} on the validation window of split {split.hash};\n"
        f"{compared}"
        f"# the best of {len(result.trials)} trials of `python -m training tune`, seed {seed}, on\n"
        f"# {split.before_test.snapshot_id or 'a snapshot'}: {split.protocol.partition(':')[0]}.\n"
    )
    values: dict[str, Any] = result.config.model_dump(mode="json")
    return comment + yaml.safe_dump(values, sort_keys=False)
