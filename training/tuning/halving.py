"""A search by successive halving (Jamieson and Talwalkar, 2016) over the users whose events a trial is fitted on.

Many configurations are fitted on the events of a sample of users. The best third of them is fitted on a larger sample,
and so on until the last rung, whose trials are fitted on the events of all users and judged on all queries. There the
configuration in use is fitted first, so that whatever time is left, the result is a comparison with it. Within a rung,
a fit in epochs that falls behind the others is stopped.

Small data have one rung, because a sample of few events favours configurations for few events, and fits are quick.
An ensemble has one too: its base models are fitted before the search, and a trial learns little more than weights.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import structlog

from training.data.splits import Split
from training.models.contract import ModelConfig, Recommender, RuntimeOptions
from training.tuning.batches import TrialTasks
from training.tuning.ensembles import FitFunction
from training.tuning.results import StudyResult, TrialResult, distinct
from training.tuning.search_space import SearchSpace
from training.tuning.study import REDUCTION, StopSignal, TrialCallback, run_study

log = structlog.get_logger(__name__)

MAX_TRIALS = 60
"""Configurations of a first rung. On small data they take a minute."""
MIN_EVENTS = 100_000
"""The first rung has at least so many events."""
MAX_RUNGS = 3
RUNG_QUERIES = 3_000
"""Validation queries that judge a rung before the last."""
_FIRST_RUNG_TIME, _LATER_RUNG_TIME = 0.4, 0.35
"""Shares of the time that is left: of the first rung, and of those between it and the last, which has the rest."""


def rung_shares(n_events: int) -> tuple[float, ...]:
    """The shares of the users in each rung, ascending; the last is 1.

    >>> rung_shares(50_000), rung_shares(1_000_000)
    ((1.0,), (0.1111111111111111, 0.3333333333333333, 1.0))
    """
    powers = [power for power in range(MAX_RUNGS) if not power or n_events / REDUCTION**power >= MIN_EVENTS]
    return tuple(1 / REDUCTION**power for power in reversed(powers))


def split_of_sample(split: Split, share: float, seed: int) -> Split:
    """The split with the training events of a share of the users, and with at most RUNG_QUERIES validation queries.

    Queries of users outside of the sample stay: models score histories, and more queries judge better. A larger share
    with the same seed holds the users of a smaller one. The test window is as it was.
    """
    kept = np.random.default_rng(seed).random(split.train.n_users) < share
    train = split.train.where(kept[split.train.interactions.users])
    return replace(split, train=train, validation=split.validation.sample(RUNG_QUERIES, seed))


def search_by_halving(
    family: type[Recommender],
    split: Split,
    space: SearchSpace,
    base: ModelConfig,
    *,
    options: RuntimeOptions,
    minutes: float,
    trials: int = MAX_TRIALS,
    on_trial: TrialCallback = lambda trial: None,
    fit: FitFunction | None = None,
    anchors: Sequence[ModelConfig] = (),
    stop: StopSignal = lambda: False,
    tasks: TrialTasks | None = None,
) -> StudyResult:
    """Look for a better configuration than `base` within the time, on the validation window alone.

    Args:
        family: the family to tune.
        split: of the data set to tune for.
        space: the hyper-parameters to search.
        base: the configuration that the winner is compared with.
        options: `seed` of sampler, samples and fits; `max_seconds` bounds one fit.
        minutes: no trial begins after this time, and the last one is bounded by what is left of it.
        trials: the largest number of configurations of the first rung.
        on_trial: called with every trial when it has ended.
        fit: how a trial of an ensemble fits its model: `training.tuning.ensembles.ensemble_fit`.
        anchors: configurations that are tried before the sampler suggests any.
        stop: ends the search, which then has the trials so far.
        tasks: fits and judges trials of a family that is no ensemble in batches, elsewhere. They sample users by
            `split_of_sample` with the seed of the options.

    Raises:
        ValueError: the window has no queries, or no trial on the events of all users completed.
        SearchStoppedError: stopped before the last rung.
    """
    shares = rung_shares(len(split.train.interactions)) if fit is None else (1.0,)
    began = time.perf_counter()
    found: list[TrialResult] = []
    candidates: list[ModelConfig] = list(anchors)

    for share in shares:
        last, first, start = share == 1, not found, len(found)
        left = max(0.0, minutes - (time.perf_counter() - began) / 60)

        def tell(trial: TrialResult, start: int = start, share: float = share) -> None:
            found.append(replace(trial, number=start + trial.number, share=share))
            on_trial(found[-1])

        try:
            rung = run_study(
                family,
                split if last else split_of_sample(split, share, options.seed),
                space,
                base,
                options=options,
                minutes=left * (1 if last else _FIRST_RUNG_TIME if first else _LATER_RUNG_TIME),
                trials=trials if first else len(distinct([base, *candidates])),
                on_trial=tell,
                fit=fit,
                anchors=candidates,
                stop=stop,
                halving=not last,
                share=share,
                tasks=tasks,
            )
        except ValueError as error:
            if stop():
                raise SearchStoppedError(tuple(found)) from error
            if last:
                raise
            log.warning("no trial of a rung completed", family=family.family, share=share, reason=str(error))
            candidates = []
            continue
        if last:
            return StudyResult(start + rung.best, rung.config, rung.value, tuple(found), start, rung.stopped)
        if rung.stopped:
            raise SearchStoppedError(tuple(found))
        candidates = _best_third(found[start:], base)
    raise AssertionError("the last rung returns")


class SearchStoppedError(Exception):
    """A search was stopped before a configuration was fitted on the events of all users.

    No ValueError, which would say that the data are not enough for a fit.
    """

    def __init__(self, trials: tuple[TrialResult, ...] = ()) -> None:
        """trials: those that ended."""
        super().__init__("stopped before a configuration was fitted on the events of all users")
        self.trials = trials


def _best_third(trials: Sequence[TrialResult], base: ModelConfig) -> list[ModelConfig]:
    """The configurations that reach the next rung, best first; `base`, which every rung has, is not counted."""
    complete = sorted((each for each in trials if each.value is not None), key=lambda each: -(each.value or 0.0))
    others = [config for config in distinct([each.config for each in complete if each.config]) if config != base]
    return others[: max(1, -(-len(others) // REDUCTION))]
