"""Better hyper-parameters for one data set, by Optuna (Akiba et al., 2019), on the validation window alone."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import yaml

from training.data.splits import Split
from training.evaluation.rankings import rank_queries
from training.models.contract import Ensemble, ModelConfig, Recommender, RuntimeOptions
from training.tuning.batches import GivenTrial, TrialOutcome, TrialTasks, draw, judged_alone, run_batch
from training.tuning.ensembles import FitFunction
from training.tuning.results import COMPLETE, FAILED, METRIC, PRUNED, StudyResult, TrialResult, distinct
from training.tuning.search_space import SearchSpace

STARTUP_TRIALS = 8
"""Trials drawn at random before the sampler learns from them."""
REDUCTION = 3
"""One in so many configurations reaches the next rung, whose sample of users is so many times larger."""

TrialCallback = Callable[[TrialResult], None]
"""Called with the result of every trial when it has ended."""

StopSignal = Callable[[], bool]
"""Whether a search has to end. It is called after every trial and after every step of a fit that reports any."""


def pruner_of(halving: bool) -> optuna.pruners.BasePruner:
    """Ends a fit that falls behind the earlier trials: at each rung of steps those that are not among the best of them
    (`halving`), or from the third step on those that do worse than their median."""
    if halving:
        return optuna.pruners.SuccessiveHalvingPruner(2, REDUCTION)
    return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)


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
    anchors: Sequence[ModelConfig] = (),
    stop: StopSignal = lambda: False,
    halving: bool = False,
    share: float = 1.0,
    tasks: TrialTasks | None = None,
) -> StudyResult:
    """Search the space until the time is up; the configuration that does best on the validation window wins.

    Models are fitted on `split.train` and judged on `split.validation`. The test window is not looked at. The first
    trial is `base`, so that the result is never worse than `base` on the validation window. The trials after it are the
    anchors. The best of these gives what the space does not name for all later trials, and they teach the sampler.
    A fit that reports its progress is pruned where it does worse than the median of the earlier trials at its step.

    Args:
        family: the family to tune.
        split: of the data set to tune for.
        space: the hyper-parameters to search.
        base: the configuration that the search begins with.
        options: `seed` of sampler and fits; `max_seconds` bounds one fit.
        minutes: no trial begins after this time, and the last one is bounded by what is left of it.
        trials: the largest number of trials; None: as many as the time allows.
        on_trial: called with every trial when it has ended.
        fit: how a trial fits its model. An ensemble needs `training.tuning.ensembles.ensemble_fit`.
        anchors: configurations of the family that are tried before the sampler suggests any.
        stop: ends the search, which then has the trials so far.
        halving: which pruner ends fits early, see `pruner_of`.
        share: of the users whose events are in `split.train`.
        tasks: fits and judges trials in batches, elsewhere. None: one after the other, here.

    Raises:
        ValueError: the window has no queries, no trial completed, or an ensemble comes without `fit`.
    """
    if not len(split.validation):
        raise ValueError("the validation window holds no query to tune on")
    if fit is None:
        if issubclass(family, Ensemble):
            raise ValueError(f"{family.family} is an ensemble: pass ensemble_fit, which fits its base models")
        fit = plain_fit(family, split)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began = time.perf_counter()
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=options.seed),
        pruner=pruner_of(halving),
    )
    given = distinct([base, *anchors])
    for config in given:
        study.enqueue_trial(space.encode(config))
    results: list[TrialResult] = []
    stopped = False

    def left() -> float:
        return 60 * minutes - (time.perf_counter() - began)

    def search_in_batches(tasks: TrialTasks) -> None:
        nonlocal stopped
        while not stopped and left() > 0 and (trials is None or len(results) < trials):
            own = given[len(results) : len(results) + tasks.batch]  # a batch has given trials or drawn ones
            size = min(len(own) or tasks.batch, tasks.batch if trials is None else trials - len(results))
            drawn = draw(study, space, _best(results[: len(given)]) or base, own, size)
            seconds = min(options.max_seconds, max(1.0, left()))
            with closing(run_batch(study, drawn, tasks, share, seconds)) as ended:
                for result in ended:
                    results.append(result)
                    on_trial(result)
                    if stop():
                        stopped = True
                        break

    def objective(trial: optuna.Trial) -> float:
        nonlocal stopped
        bounded = replace(options, max_seconds=min(options.max_seconds, max(1.0, left())))
        center = _best(results[: len(given)]) or base
        # The first trials are the given ones themselves, even where they lie outside of the space.
        own = given[len(results)] if len(results) < len(given) else None
        result = run_trial(fit, split, trial, lambda: space.suggest(trial, center), bounded, own, stop)
        results.append(result)
        on_trial(result)
        if stop():
            stopped = True
            study.stop()
        if result.value is None:
            # A failed trial counts as pruned, because the sampler forgets failures and would suggest them again.
            raise optuna.TrialPruned
        return result.value

    if tasks is None:
        study.optimize(objective, n_trials=trials, timeout=60 * minutes)
    else:
        search_in_batches(tasks)
    complete = [(each.value, -each.number, each.config) for each in results if each.value is not None and each.config]
    if not complete:
        reasons = "; ".join(dict.fromkeys(each.reason for each in results))
        raise ValueError(f"no trial of {family.family} completed: {reasons or 'there was no time for one'}")
    value, number, config = max(complete, key=lambda each: each[:2])  # of equal values the earlier trial
    return StudyResult(-number, config, value, tuple(results), stopped=stopped)


def _best(results: Sequence[TrialResult]) -> ModelConfig | None:
    """The configuration with the highest value; None where no trial completed."""
    complete = [each for each in results if each.value is not None]
    return max(complete, key=lambda each: each.value or 0.0).config if complete else None


class _StoppedError(Exception):
    """Ends a fit of a search that was stopped."""


def plain_fit(family: type[Recommender], split: Split) -> FitFunction:
    """Fits a model of a family that is no ensemble on `split.train`."""
    return lambda config, options: family(config).fit(split.train, options)


def run_trial(
    fit: FitFunction,
    split: Split,
    trial: optuna.Trial,
    suggest: Callable[[], ModelConfig],
    options: RuntimeOptions,
    given: ModelConfig | None,
    stop: StopSignal,
) -> TrialResult:
    """Fit and judge one configuration.

    suggest: draws a configuration from the space, which every trial has to do; it may raise ValueError.
    given: the configuration to take in place of the suggested one.
    stop: ends the fit at its next step.
    """
    began = time.perf_counter()
    curve: list[float] = []

    def progress(step: int, total: int, figure: float | None) -> None:
        if stop():
            raise _StoppedError
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
    except _StoppedError:
        state, reason = PRUNED, "the search was stopped"
    except optuna.TrialPruned:
        state, reason = PRUNED, f"worse than the median after {len(curve)} steps"
    except (ValueError, ArithmeticError, MemoryError) as error:
        state, reason = FAILED, " ".join(str(error).split()) or type(error).__name__
    seconds = time.perf_counter() - began
    return TrialResult(trial.number, config, value, tuple(curve), state, reason, seconds, per_query)


def run_given_trial(
    trial: GivenTrial, fit: FitFunction, split: Split, options: RuntimeOptions, halving: bool
) -> TrialOutcome:
    """Fit and judge a trial of a batch, in whatever process. halving: as in `run_study`."""
    study = judged_alone(trial.earlier, pruner_of(halving))
    bounded = replace(options, max_seconds=trial.max_seconds)
    result = run_trial(fit, split, study.ask(), lambda: trial.config, bounded, None, lambda: False)
    return TrialOutcome(replace(result, number=trial.number), study.trials[-1].intermediate_values)


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
