"""The default hyper-parameters of the sequential transformer, as functions of the data.

Two quantities say how much a network can learn from the data:

    density  how long the sequences are: 0 up to 20 events per user, 1 from 160 on
    scale    density, times how many events there are: 0 up to 150,000, 1 from a million on

They run from 0 to 1 with the logarithm. Sparse data (both 0) get a small network, a strong decay of its weights and
many refit epochs; dense and large data (both 1) get twice the width, depth and context. Between them the functions are
geometric. docs/models-log.md has the figures that their ends come from, and which of them rest on a single data set.

Where users repeat items, repeat consumption explains most targets and more epochs or a larger network gained nothing,
so the share of repeats reduces both. Values are rounded, so that a few new events do not change them.
"""

from math import ceil, floor, log, log2
from typing import Any

from training.data.dataset import MIN_REPEAT_SHARE
from training.data.profile import DataProfile, preferred_number

_CANDIDATES = 8_192
_LOSS_BUDGET = 3.5e9
"""Targets times items of their softmax in an epoch; more take longer than what they teach is worth."""
_MIN_STEPS = 500
"""Steps of a fit on data whose repeats explain most targets."""


def default_values(profile: DataProfile) -> dict[str, Any]:
    """Keys of `DeepLearningConfig` for data of this profile, which may be of an empty data set."""
    density = _share(profile.events_per_user, 20, 160)
    scale = density * _share(profile.n_events, 150_000, 1_000_000)
    new_share = max(0.0, 1 - 2 * profile.repeat_share)
    size = scale * new_share
    dimensions = 64 + 32 * round(2 * (2**size - 1))
    max_length = 100 + 50 * round(2 * (2**size - 1))
    batch_size, steps = _batch(profile, max_length)
    learning_rate = 0.002 * 64 / dimensions  # of the same parametrisation, the best rate falls with the width
    refit = 2.0 ** -(density + scale)
    candidates = _candidates(profile)
    return {
        "dimensions": dimensions,
        "heads": dimensions // 32,
        "blocks": 2 + round(2 * size),
        "max_length": max_length,
        "dropout": round(20 * (0.15 + 0.2 * density / 4**scale)) / 20,
        "id_dropout": _id_dropout(profile),
        "popularity_half_lives": _half_lives(profile),
        "repeat_half_lives": _half_lives(profile),
        "horizon_days": _horizon(profile),
        "target_share": _target_share(profile, candidates, batch_size * max_length / 2, new_share),
        "candidates": candidates,
        "precision": "auto",
        "weight_averaging": round(1 - 0.01 * 0.3**scale, 3),
        "batch_size": batch_size,
        "learning_rate": round(learning_rate, 5),
        "weight_decay": preferred_number(10**-scale, 0.1, 1.0),
        "epochs": _epochs(density, new_share, steps),
        "patience": 5,
        "refit_epochs": max(1, round(4 * refit)),
        "refit_learning_rate": round(0.3 * learning_rate * 2**-density, 5),
    }


def _share(value: float, low: float, high: float) -> float:
    """Where a value lies between two others on a logarithmic scale, 0 to 1."""
    return min(1.0, max(0.0, log(max(value, low) / low) / log(high / low)))


def _batch(profile: DataProfile, max_length: int) -> tuple[int, int]:
    """Sequences of a batch, a power of two, and the steps of an epoch.

    Long sequences need few of them: smaller batches learned more in an epoch. Little data needs few too, so that an
    epoch has about forty steps.
    """
    sequences = profile.n_users + profile.n_events / max_length
    wanted = min(max(32.0, 64 * (20 / max(20.0, profile.events_per_user)) ** 0.5), sequences / 40)
    batch_size = 2 ** round(log2(min(64.0, max(16.0, wanted))))
    return batch_size, max(1, ceil(sequences / batch_size))


def _epochs(density: float, new_share: float, steps: int) -> int:
    """The largest number of epochs, in fives; of data that repeat themselves only what `_MIN_STEPS` takes."""
    epochs = min(30, 5 * round((20 + 12 * density) / 5))
    return max(round(new_share * epochs), min(epochs, ceil(_MIN_STEPS / steps)))


def _id_dropout(profile: DataProfile) -> float:
    """None where items have no content to learn from, or so many events each that their ids say everything."""
    return round(0.1 * (1 - _share(profile.events_per_item, 60, 300)), 2) if profile.has_metadata else 0.0


def _candidates(profile: DataProfile) -> int:
    """Items of a softmax. A catalogue of up to 8,192 items is never sampled; many events afford fewer for each."""
    if profile.n_items <= _CANDIDATES:
        return _CANDIDATES
    afforded = _CANDIDATES * min(1.0, 400_000 / max(1, profile.n_events)) ** 1.5
    return 2 ** round(log2(min(_CANDIDATES, max(_CANDIDATES / 4, afforded))))


def _target_share(profile: DataProfile, candidates: int, of_batch: float, new_share: float) -> float:
    """The share of targets that `_LOSS_BUDGET` affords; a fifth of it where users only repeat items.

    of_batch: items of a batch, which are added to a sample.
    """
    items = profile.n_items if profile.n_items <= candidates else candidates + of_batch
    afforded = _LOSS_BUDGET * max(0.2, new_share) / max(1.0, profile.n_events * items)
    return floor(10 * min(1.0, max(0.2, afforded))) / 10


def _half_lives(profile: DataProfile) -> tuple[float, float]:
    """A short and a long one in days: of a fortnight and a quarter, or shorter where the data cover less time."""
    if not profile.span_days:
        return 14.0, 90.0
    short, long = profile.span_days / 6, profile.span_days / 1.5
    return (
        14.0 if short >= 14 else preferred_number(short, 0.05, 10.0),
        90.0 if long >= 90 else preferred_number(long, 0.2, 50.0),
    )


def _horizon(profile: DataProfile) -> float | None:
    """Days ahead to predict where users repeat items: the next event of a basket never repeats an item of it."""
    if profile.repeat_share < MIN_REPEAT_SHARE or not profile.span_days:
        return None
    return preferred_number(profile.span_days / 20, 0.05, 30.0)
