"""What a fit of the sequential transformer costs."""

from training.models.content_based.workload import content_width, encoder_workload
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.softmax import SLICE
from training.models.workload import MS, PASS, PRODUCT, DataSizes, Workload

_BACKWARD = 3
"""A step forward and back costs three times the step forward."""
_PADDED = 1.1
"""Places of a batch for each event in it."""
_SOFTMAX_PASSES = 10
"""How often each entry of the logits is read and written: trend logits, masks, exponentials and their gradient."""
_OPTIMISER_PASSES = 12
"""How often each parameter is read and written in a step: gradient, moments, decay, clipping and the EMA."""
_MATRICES = 13
"""Multiply-adds of one place in the matrices of a block, over `dimensions` squared."""
_JUDGED_USERS, _JUDGED_SCORINGS = 100, 60
"""Users on whom the fidelity of the attribution is measured after each fit, and the histories that are scored for each
of them: with and without each of three events, for each of ten items."""
_EXPLAINED, _ATTENTIONS = 400, 6
"""Histories that are explained at once, and the arrays of attention weights that are held of each."""


def deep_learning_workload(sizes: DataSizes, config: DeepLearningConfig, refit: bool) -> Workload:
    """The cost of a fit that runs all its epochs; early stopping and `max_seconds` make it shorter.

    refit: the fit continues an earlier one, for `refit_epochs`.
    """
    length = min(config.max_length, 1 + 2 * sizes.earlier_events)  # of the sequence that an event lies in, on average
    place, parameters = _place_seconds(config, length), _parameters(sizes, config)
    candidates = float(sizes.items)
    if sizes.items > config.candidates:  # a sample, and the items of the batch
        candidates = config.candidates + config.batch_size * length / 2
    softmax = candidates * (_BACKWARD * config.dimensions * PRODUCT + _SOFTMAX_PASSES * PASS)
    steps = (sizes.users + sizes.events / config.max_length) / config.batch_size
    epoch = _PADDED * sizes.events * (_BACKWARD * place + config.target_share * softmax)
    epoch += steps * (10 * MS + parameters * _OPTIMISER_PASSES * PASS)
    read = min(config.max_length, sizes.history_length)
    scoring = read * place * (1 - 0.5 / config.blocks) + sizes.items * config.dimensions * PRODUCT
    validation = min(sizes.users, 1_000) * scoring
    epochs = config.refit_epochs if refit else config.epochs + config.refit_epochs
    fit = Workload(
        parameters,
        epochs * epoch
        + (0 if refit else config.epochs * validation)
        + min(_JUDGED_USERS, sizes.users) * _JUDGED_SCORINGS * scoring,
        _peak_bytes(sizes, config, length, parameters, candidates),
        scoring_seconds=scoring,
        stops_in_time=True,
    )
    return fit if refit else encoder_workload(sizes, config.content) + fit


def _place_seconds(config: DeepLearningConfig, length: float) -> float:
    """Seconds of one place of a sequence, forward: matrices, attention and element-wise operations."""
    d = config.dimensions
    products = _MATRICES * d**2 + 2 * length * d
    entries = 20 * d + 3 * length * config.heads
    return config.blocks * (products * PRODUCT + entries * PASS)


def _peak_bytes(
    sizes: DataSizes, config: DeepLearningConfig, length: float, parameters: int, candidates: float
) -> float:
    """Weights with their gradients and moments, one step, a slice of logits, validation, vectors and attribution."""
    width = content_width(sizes, config.content)
    step = config.batch_size * length * config.blocks * (20 * config.dimensions + 3 * length * config.heads)
    attribution = _ATTENTIONS * min(_EXPLAINED, sizes.users) * config.heads * (length + 1) ** 2
    logits = 4 * SLICE * candidates + 4 * 128 * sizes.items
    return 24.0 * parameters + 4.0 * (2 * step + attribution + logits + 2 * sizes.items * width)


def _parameters(sizes: DataSizes, config: DeepLearningConfig) -> int:
    """Ids of items, the projection of their content and the blocks; the few other parameters are left out."""
    d = config.dimensions
    return d * (sizes.items + content_width(sizes, config.content) + config.blocks * _MATRICES * d)
