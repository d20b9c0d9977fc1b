"""Better hyper-parameters for one data set, by Optuna (Akiba et al., 2019), on the validation window alone."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import optuna
import yaml

from training.data.splits import Split
from training.evaluation.rankings import rank_queries
from training.models.contract import Ensemble, ModelConfig, Recommender, RuntimeOptions
from training.tuning.ensembles import Fit
from training.tuning.results import COMPLETE, FAILED, METRIC, PRUNED, StudyResult, TrialResult
from training.tuning.search_space import SearchSpace

STARTUP_TRIALS = 8
"""Trials drawn at random before the sampler learns from them."""


class Log(Protocol):
    """Is told of every trial when it has ended."""

    def __call__(self, tried: TrialResult) -> None: ...


def tune(
    family: type[Recommender],
    split: Split,
    space: SearchSpace,
    base: ModelConfig,
    *,
    options: RuntimeOptions,
    minutes: float,
    trials: int | None = None,
    log: Log = lambda tried: None,
    fit: Fit | None = None,
) -> StudyResult:
    """Search the space until the time is up; the configuration that does best on the validation window wins.

    Models learn from `split.train` and are judged on `split.validation`. The test window is not looked at. The first
    trial is `base`, so that what comes out is never worse than it there; a fit that reports its progress is cut off
    where it does worse than the median of the earlier ones at the same step.

    Args:
        family: what is tuned.
        split: of the data set to tune for.
        space: what is tried.
        base: values of what the space does not name, and where the search begins.
        options: `seed` of sampler and fits; `max_seconds` bounds one fit.
        minutes: no trial begins after so long, and the last one is bounded by what is left.
        trials: at most so many.
        log: told of every trial.
        fit: of an ensemble, `training.tuning.ensembles.ensemble_fit`.

    Raises:
        ValueError: the window has no questions, no trial came to an end, or an ensemble has no way to be fitted.
    """
    if not len(split.validation):
        raise ValueError("the validation window holds no question to tune on")
    if fit is None:
        if issubclass(family, Ensemble):
            raise ValueError(f"{family.family} is fitted over base models: say how")
        fit = _plain(family, split)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began = time.perf_counter()
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=options.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
    )
    study.enqueue_trial(space.place(base))
    found: list[TrialResult] = []

    def attempt(trial: optuna.Trial) -> float:
        left = max(1.0, 60 * minutes - (time.perf_counter() - began))
        bounded = replace(options, max_seconds=min(options.max_seconds, left))
        # The first trial is `base` itself, also where it lies outside of the space.
        tried = _try(fit, split, trial, lambda: space.suggest(trial, base), bounded, base if not found else None)
        found.append(tried)
        log(tried)
        if tried.value is None:
            raise optuna.TrialPruned  # also of what failed: the sampler forgets failures and would come back to them
        return tried.value

    study.optimize(attempt, n_trials=trials, timeout=60 * minutes)
    ended = [(t.value, -t.number, t.config) for t in found if t.value is not None and t.config is not None]
    if not ended:
        reasons = "; ".join(dict.fromkeys(tried.reason for tried in found))
        raise ValueError(f"no trial of {family.family} came to an end: {reasons or 'there was no time for one'}")
    value, place, config = max(ended, key=lambda one: one[:2])
    return StudyResult(-place, config, value, tuple(found))


def _plain(family: type[Recommender], split: Split) -> Fit:
    return lambda config, options: family(config).fit(split.train, options)


def _try(
    fit: Fit,
    split: Split,
    trial: optuna.Trial,
    suggest: Callable[[], ModelConfig],
    options: RuntimeOptions,
    first: ModelConfig | None,
) -> TrialResult:
    began = time.perf_counter()
    curve: list[float] = []

    def progress(step: int, total: int, figure: float | None) -> None:
        if figure is None:
            return
        curve.append(figure)
        trial.report(figure, step)
        if trial.should_prune():
            raise optuna.TrialPruned

    config, value, figures, state, reason = None, None, None, COMPLETE, ""
    try:
        config = suggest()
        config = first or config
        model = fit(config, replace(options, progress=progress))
        figures = rank_queries(model, split.validation).per_user[METRIC]
        value = float(np.nanmean(figures))
    except optuna.TrialPruned:
        state, reason = PRUNED, f"worse than the median after {len(curve)} steps"
    except (ValueError, ArithmeticError) as error:
        state, reason = FAILED, " ".join(str(error).split())
    seconds = time.perf_counter() - began
    return TrialResult(trial.number, config, value, tuple(curve), state, reason, seconds, figures)


def as_yaml(family: str, split: Split, tuned: StudyResult, seed: int) -> str:
    """The winner as a file of `configs/models`, with a comment that says where it comes from."""
    gain = tuned.gain
    before = ""
    if gain is not None:
        before = f"# {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) over the configuration it began with;\n"
    comment = (
        f"# {family}: {METRIC} {tuned.value:.4f} on the validation window of split {split.hash};\n"
        f"{before}"
        f"# the best of {len(tuned.tried)} trials of `python -m training tune`, seed {seed}, on\n"
        f"# {split.before_test.snapshot_id or 'a snapshot'}: {split.protocol.partition(':')[0]}.\n"
    )
    values: dict[str, Any] = tuned.config.model_dump(mode="json")
    return comment + yaml.safe_dump(values, sort_keys=False)
