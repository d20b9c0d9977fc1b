"""How an ensemble is fitted during a search: its base models are fitted once, not in every trial.

The base models are fitted one window earlier than for a report, so that neither they nor the ensemble have learned
from the window that judges the trials:

    events before WINDOW      fit the base models whose scores the ensemble learns to weigh
    WINDOW of `split.train`   holds the queries that the ensemble learns from
    `split.train`             fits the base models that the ensemble then ranks with
    `split.validation`        judges the trial
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import structlog

from training.data.dataset import Dataset
from training.data.splits import Holdout, Split, leave_one_out_split
from training.models.contract import Ensemble, ModelConfig, Recommender, RuntimeOptions
from training.models.registry import family_class

log = structlog.get_logger(__name__)

WINDOW = 0.125
"""Share of the events of `split.train`, the newest ones, that an ensemble learns from: as many as validate."""

FitFunction = Callable[[ModelConfig, RuntimeOptions], Recommender]
"""Fits a model with a configuration."""


def ensemble_fit(
    family: type[Ensemble], split: Split, base_models: Mapping[str, ModelConfig], options: RuntimeOptions
) -> FitFunction:
    """Fit the base models now, and return a function that fits an ensemble over them in each trial.

    Args:
        family: the ensemble's class.
        split: its `train` is learned from.
        base_models: configurations of the base models by family. A family whose fit raises ValueError is left out.
        options: of the base models' fits; `max_seconds` bounds each fit.

    Raises:
        ValueError: the data are enough for none of the families, or cannot be split in time.
    """
    past, since, queries = _window(split)
    earlier: dict[str, Recommender] = {}
    later: dict[str, Recommender] = {}
    for name, config in base_models.items():
        try:
            earlier[name] = family_class(name)(config).fit(past, options)
            later[name] = earlier[name].refit(split.train, options)
        except ValueError as error:
            log.warning("base model left out of the ensemble", family=name, reason=str(error))
            earlier.pop(name, None)
    if not earlier:
        raise ValueError(f"the data are enough for none of the families to combine: {', '.join(base_models)}")

    def fit(config: ModelConfig, fit_options: RuntimeOptions) -> Recommender:
        ensemble = family(config, earlier, since, queries)
        ensemble.fit(split.train if queries is None else past, replace(fit_options, progress=None))
        return ensemble.with_refitted(later, split.train)

    return fit


def _window(split: Split) -> tuple[Dataset, int | None, Holdout | None]:
    """The events before the window, with the time at which it begins (microseconds) or with its queries.

    A leave-one-out split has no such time, so each user's last training event becomes a query.
    """
    if split.known_until is None:
        inner = leave_one_out_split(split.train, split.mask)
        return inner.before_test, None, inner.test
    times = split.train.interactions.timestamps
    since = int(np.quantile(times, 1 - WINDOW, method="higher"))
    past = split.train.where(times < since)
    if not len(past.interactions):
        raise ValueError("an ensemble needs events at different times; most share one timestamp")
    return past, since, None
