"""Fits of an ensemble for a search: its base models are fitted once, one window earlier than for a report.

before the base models' last window    base models that the ensemble learns over, on questions of that window
`split.train`                         base models that it then ranks with
`split.validation`                    judges; nothing here has learned from it
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

Fit = Callable[[ModelConfig, RuntimeOptions], Recommender]


def ensemble_fit(
    family: type[Ensemble], split: Split, base_models: Mapping[str, ModelConfig], options: RuntimeOptions
) -> Fit:
    """Fit the base models; what comes back fits an ensemble over them to a configuration, quickly.

    Args:
        family: the ensemble's class.
        split: its `train` is learned from.
        base_models: families to combine, with their configurations; one that the data cannot carry is left out.
        options: of the base models' fits; `max_seconds` bounds each.

    Raises:
        ValueError: the data carry none of the families, or do not part in time.
    """
    past, since, questions = _window(split)
    earlier: dict[str, Recommender] = {}
    later: dict[str, Recommender] = {}
    for name, config in base_models.items():
        try:
            earlier[name] = family_class(name)(config).fit(past, options)
            later[name] = earlier[name].refit(split.train, options)
        except ValueError as error:
            log.warning("left out of the ensemble", family=name, reason=str(error))
            earlier.pop(name, None)
    if not earlier:
        raise ValueError(f"the data carry none of the families to combine: {', '.join(base_models)}")

    def fit(config: ModelConfig, fit_options: RuntimeOptions) -> Recommender:
        ensemble = family(config, earlier, since, questions)
        ensemble.fit(split.train if questions is None else past, replace(fit_options, progress=None))
        return ensemble.with_refitted(later, split.train)

    return fit


def _window(split: Split) -> tuple[Dataset, int | None, Holdout | None]:
    """The data set before the window, and the moment that begins it or the questions about it."""
    if split.known_until is None:  # positions are no clock
        inner = leave_one_out_split(split.train, split.mask)
        return inner.before_test, None, inner.test
    times = split.train.interactions.timestamps
    since = int(np.quantile(times, 1 - WINDOW, method="higher"))
    past = split.train.where(times < since)
    if not len(past.interactions):
        raise ValueError("an ensemble needs events before and after a moment; most share one")
    return past, since, None
