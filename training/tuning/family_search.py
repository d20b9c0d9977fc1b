"""The search of one family on one split, as the pipeline and `python -m training evaluate --search` run it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from training.config import config_for
from training.data.profile import DataProfile
from training.data.splits import Split
from training.models.contract import Ensemble, ModelConfig, RuntimeOptions
from training.models.registry import family_class
from training.train import FIRST_FIT_SHARE
from training.tuning.batches import TrialTasks
from training.tuning.ensembles import FitFunction, ensemble_fit
from training.tuning.halving import SearchStoppedError, search_by_halving
from training.tuning.results import StudyResult
from training.tuning.search_space import load_anchors, load_space
from training.tuning.study import StopSignal, TrialCallback

_BASE_MODEL_TIME = 0.2
"""Share of a search's time that one fit of an ensemble's base model may take; each is fitted twice."""


def search_family(
    family: str,
    split: Split,
    base: ModelConfig,
    *,
    options: RuntimeOptions,
    minutes: float,
    base_models: Mapping[str, ModelConfig] | None = None,
    earlier: Sequence[ModelConfig] = (),
    on_trial: TrialCallback = lambda trial: None,
    stop: StopSignal = lambda: False,
    tasks: TrialTasks | None = None,
) -> StudyResult:
    """Look for a better configuration than `base` on the validation window; the test window is not looked at.

    Tried first, after `base`: what earlier searches found, the family's default for the data, and its anchors.

    Args:
        family: a family with a search space.
        split: of the data set to tune for.
        base: what is in use.
        options: `max_seconds` is the bound of a whole training; a trial has the share that its first fit gets.
        minutes: of the whole search, fits of an ensemble's base models included.
        base_models: configurations of an ensemble's base models, by family.
        earlier: configurations that earlier searches found promising, best first.
        on_trial: called with every trial when it has ended.
        stop: ends the search, which then has the trials so far.
        tasks: fits and judges trials in batches, elsewhere. An ensemble's trials run here, over its base models.

    Raises:
        ValueError: the family has no search space, the data are not enough for it, or no trial completed.
        SearchStoppedError: stopped before there was a result.
    """
    began = time.perf_counter()
    found, space = family_class(family), load_space(family)
    default = config_for(family, DataProfile.of(split.train))
    first_fit = replace(options, max_seconds=options.max_seconds * FIRST_FIT_SHARE)
    fit: FitFunction | None = None
    if issubclass(found, Ensemble):
        seconds = min(first_fit.max_seconds, 60 * minutes * _BASE_MODEL_TIME)
        of_base_models = replace(options, max_seconds=seconds, progress=partial(_end_where_stopped, stop))
        fit = ensemble_fit(found, split, base_models or {}, of_base_models)
    return search_by_halving(
        found,
        split,
        space,
        base,
        options=first_fit,
        minutes=minutes - (time.perf_counter() - began) / 60,
        on_trial=on_trial,
        fit=fit,
        anchors=[*earlier, default, *load_anchors(family, default)],
        stop=stop,
        tasks=tasks if fit is None else None,
    )


def _end_where_stopped(stop: StopSignal, step: int, total: int, figure: float | None) -> None:
    """Ends the fit of a base model at its next step where the search is stopped."""
    if stop():
        raise SearchStoppedError
