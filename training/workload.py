"""The work that a fit is, counted from the sizes of log and catalogue and from the configuration.

Where counting would be guessing, a part is tried: a few steps of the transformer, a few histories scored.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np

from training.data.dataset import Dataset
from training.data.splits import Split
from training.models.contract import ModelConfig, Recommender, RuntimeOptions
from training.resource_usage import Stopwatch, resident_mb

MB = 2**20
DOUBLE_UP_TO = 4_000  # items up to which a closed form is solved in double precision
_SVD_PASSES, _SVD_EXTRA = 12, 10  # of scikit-learn's randomised singular vectors
_LABELLED = 2.5e-5  # seconds a fact for a mixture over labels, as measured on the two data sets that are configured so
_TRIANGULAR = 1.6  # solving runs so much slower than the plain product that is probed
_MEMORY_CELLS = 20_000_000  # entries of a memory held at once, see `collaborative.transitions`
# Freed pieces of unlike sizes do not fit together again: a long fit holds so much more than a few steps.
_FRAGMENTED = 2.0
_BACKWARD = 3  # a step forward and back costs three times the step forward
_VALIDATED_USERS, _VALIDATED_AT_ONCE = 1_000, 128  # of early stopping, see `deep_learning.model` and `.loop`
# Attribution is judged by so many sequences forward and back, so many of them at once with about six arrays of weights.
_ATTRIBUTED, _ATTRIBUTED_AT_ONCE, _ATTENTIONS = 1_400, 400, 6
_REHEARSED_USERS = 32


@dataclass(frozen=True)
class Sizes:
    """What decides the cost of a fit on a data set."""

    rows: int  # events
    users: int
    items: int
    known_items: int  # with an event
    pairs: int  # distinct items of users, of their newest `max_events` events
    co_pairs: int  # ordered pairs of items of one user, summed over users
    all_pairs: int  # the same two of all events, for what is fitted past the bound on histories
    all_co_pairs: int
    places: int  # events that histories hold
    facts: int  # entries of all metadata together
    past: float  # earlier events of their user that events have, on average

    @classmethod
    def of(cls, dataset: Dataset) -> "Sizes":
        events, histories = dataset.interactions, dataset.histories()
        keys = histories.rows * dataset.n_items + histories.items
        per_user = np.bincount(np.unique(keys) // dataset.n_items, minlength=dataset.n_users).astype(np.int64)
        counts = np.bincount(events.users).astype(np.float64)
        all_items = np.diff(dataset.seen.indptr).astype(np.int64)
        return cls(
            rows=len(events),
            users=dataset.n_users,
            items=dataset.n_items,
            known_items=len(np.unique(events.items)),
            pairs=int(per_user.sum()),
            co_pairs=int((per_user**2).sum()),
            all_pairs=int(all_items.sum()),
            all_co_pairs=int((all_items**2).sum()),
            places=len(histories.items),
            facts=sum(map(len, dataset.items.metadata)),
            past=float(counts @ (counts - 1)) / max(1, 2 * len(events)),
        )


@dataclass(frozen=True)
class Fit:
    """What is to be fitted on what."""

    dataset: Dataset
    config: ModelConfig
    options: RuntimeOptions
    split: Split
    base_models: Mapping[str, Recommender]  # of a blend, fitted
    sizes: Sizes


@dataclass(frozen=True)
class Work:
    """What a fit does: learned numbers, its largest arrays, and operations by their kind."""

    parameters: int
    peak_bytes: float = 0.0
    flops: float = 0.0  # of dense products
    adds: float = 0.0  # of products of sparse matrices, one an entry met
    mixed: float = 0.0  # the same, of sparse matrices with dense ones
    moves: float = 0.0  # entries of large arrays that are sorted, looked up or partitioned
    passes: float = 0.0  # entries of arrays larger than a cache that are read or written in order
    seconds: float = 0.0  # whatever does not depend on sizes

    def __add__(self, other: "Work") -> "Work":
        """One after the other: both learn, and the memory of the first is free again."""
        return Work(
            self.parameters + other.parameters,
            max(self.peak_bytes, other.peak_bytes),
            self.flops + other.flops,
            self.adds + other.adds,
            self.mixed + other.mixed,
            self.moves + other.moves,
            self.passes + other.passes,
            self.seconds + other.seconds,
        )


def _vectors(sizes: Sizes, dimensions: int) -> Work:
    """Truncated singular vectors of the users-by-items matrix."""
    width = min(dimensions, sizes.users, sizes.items) + _SVD_EXTRA
    return Work(
        parameters=sizes.items * min(dimensions, sizes.users, sizes.items),
        peak_bytes=8.0 * width * (sizes.users + sizes.items) * 3,
        flops=2.0 * _SVD_PASSES * (sizes.users + sizes.items) * width**2,
        mixed=float(_SVD_PASSES * sizes.pairs * width),
    )


def _import_seconds(refit: bool) -> float:
    """Of scikit-learn's linear algebra, which the first fit of a process loads."""
    return 0.0 if refit or "sklearn.utils.extmath" in sys.modules else 0.6


def _popularity(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    return Work(sizes.items, peak_bytes=24.0 * sizes.rows, moves=20.0 * sizes.rows)


def _item_knn(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    kept = sizes.items * min(config["neighbours"], sizes.items)
    vectors = _vectors(sizes, config["dimensions"])
    cells = min(16_000_000, sizes.items**2)
    return vectors + Work(
        parameters=kept + sizes.items,
        peak_bytes=20.0 * cells + 12.0 * kept + 24.0 * sizes.places,
        adds=float(sizes.co_pairs),
        moves=float(sizes.items) ** 2 + 10.0 * sizes.places,
        passes=11.0 * sizes.items**2,
        seconds=_import_seconds(refit),
    )


def _solved(size: int, right: int) -> Work:
    """A symmetric system solved for so many right sides; in double precision where it is small."""
    width = 8 if size <= DOUBLE_UP_TO else 4
    flops = _TRIANGULAR * (size**3 / 3 + 2.0 * size**2 * right) * width / 4
    peak = width * (size**2 + 2.0 * size * right) + 4.0 * size * right
    return Work(size * right, peak_bytes=peak, flops=flops)


def _collaborative(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    memories = config.get("memories", ())
    if memories and sizes.items * len(memories) <= config["memory_items"]:
        read = [sizes.rows * min(ceil(8 * half_life), sizes.past) for half_life in memories]
        held = [min(each, _MEMORY_CELLS) for each in read]
        learned = _solved(sizes.items * len(memories), sizes.items)
        peak = learned.peak_bytes + 44.0 * max(held) + 12.0 * sum(held)
        learned += Work(0, peak_bytes=peak, adds=12.0 * sum(read), moves=2.0 * sum(read))
    elif sizes.items <= config["closed_form_items"]:
        learned = _ease(sizes, sizes.items, config)
    else:
        learned = _factorisation(sizes, config)
        if config.get("head_items", 0):
            learned += _ease(sizes, min(config["head_items"], sizes.items), config)
    prior = Work(sizes.items, moves=10.0 * sizes.places, seconds=_import_seconds(refit))
    return learned + prior + _vectors(sizes, config["dimensions"])


def _ease(sizes: Sizes, items: int, config: Mapping[str, Any]) -> Work:
    kept = items if items <= config["dense_items"] else min(config["kept_weights"], items)
    width = 8 if items <= DOUBLE_UP_TO else 4
    return Work(
        items * kept,
        peak_bytes=3.0 * width * items**2 + 12.0 * items * kept,
        flops=_TRIANGULAR * items**3 * width / 4.0,
        adds=float(sizes.all_co_pairs),
        moves=6.0 * items**2,
    )


def _factorisation(sizes: Sizes, config: Mapping[str, Any]) -> Work:
    """Alternating least squares with conjugate gradients: three steps over all entries, twice an iteration."""
    width = min(config["factors"], sizes.users, sizes.items)
    return Work(
        2 * sizes.items * width,
        peak_bytes=12.0 * (sizes.users + sizes.items) * width + 24.0 * sizes.all_pairs,
        flops=float(config["iterations"] * 8 * (sizes.users + sizes.items) * width**2),
        mixed=float(config["iterations"] * 8 * sizes.all_pairs * width),
    )


def _content_based(sizes: Sizes, config: Mapping[str, Any], refit: bool) -> Work:
    width = _content_width(sizes, config["encoder"]) + 1
    fitted = Work(
        2 * sizes.items * width + width**2 + sizes.items,
        peak_bytes=24.0 * (sizes.users + sizes.items) * width,
        flops=4.0 * (sizes.users + sizes.items) * width**2,
        mixed=2.0 * sizes.pairs * width,
        moves=10.0 * sizes.places,
    )
    labelled = Work(0, seconds=_LABELLED * sizes.facts if config["mixture"] is not None else 0.0)
    return _encoder(sizes, config["encoder"]) + fitted + labelled


def _content_width(sizes: Sizes, config: Mapping[str, Any]) -> int:
    """At most; fewer where the catalogue's words and labels are."""
    return min(config["text_dimensions"], sizes.items) + min(config["label_dimensions"], sizes.items)


def _encoder(sizes: Sizes, config: Mapping[str, Any]) -> Work:
    """Fields are read, words counted and thrown together; metadata is taken to hold about twenty words an item."""
    width = _content_width(sizes, config)
    flops = 2.0 * _SVD_PASSES * (sizes.items + 5_000) * (config["text_dimensions"] + _SVD_EXTRA) ** 2
    return Work(0, flops=flops, mixed=float(_SVD_PASSES * 20 * sizes.items * width), seconds=1.5e-5 * sizes.facts)


def _deep_learning(first: Fit, second: Fit) -> tuple[Work, Work]:
    """A few steps are run, and take as long per place of a sequence on whatever is learned from."""
    before = resident_mb()
    from training.models.deep_learning.config import DeepLearningConfig  # half a gigabyte of libraries comes with it
    from training.models.deep_learning.dry_run import dry_run, places

    config, sizes, values = DeepLearningConfig.model_validate(first.config), first.sizes, first.config.model_dump()
    if not sizes.rows:
        return Work(0), Work(0)
    width = _content_width(sizes, values["content"])
    trial = dry_run(first.dataset, width, config, first.options)
    once = [trial.seconds_per_place * places(fit.dataset, config) for fit in (first, second)]
    history = trial.seconds_per_place * min(values["max_length"], sizes.places / max(1, sizes.users))
    longest = min(values["max_length"], int(np.bincount(first.dataset.interactions.users).max()))
    validation = min(sizes.users, _VALIDATED_USERS) * history / _BACKWARD
    epochs, again = expected_epochs(values["epochs"], values["patience"]), values["refit_epochs"]
    seconds, refit = epochs * (once[0] + validation) + again * once[0], again * once[1]
    peak = (
        MB * (trial.libraries_mb + _FRAGMENTED * trial.grown_mb - before)
        + 16.0 * _VALIDATED_AT_ONCE * sizes.items
        + 4.0 * 2 * sizes.items * width
        + 4.0 * _ATTENTIONS * min(_ATTRIBUTED_AT_ONCE, 4 * sizes.users) * values["heads"] * (longest + 1.0) ** 2
    )
    steps = [
        Work(trial.parameters, peak_bytes=peak, seconds=min(each, fit.options.max_seconds) + _ATTRIBUTED * history)
        for fit, each in ((first, seconds), (second, refit))
    ]
    return _encoder(sizes, values["content"]) + steps[0], steps[1]


def expected_epochs(epochs: int, patience: int) -> float:
    """Between the fewest that early stopping leaves and all: off by the same factor on either side."""
    return sqrt(min(epochs, patience + 1) * epochs)


def _hybrid(first: Fit, second: Fit) -> tuple[Work, Work]:
    """Every component scores every question, and the histories that scales are measured on; which is tried."""
    sizes, values = second.sizes, second.config.model_dump()
    asked = n_questions(second.split, values["questions_per_user"], values["max_questions"])
    scaled = min(values["scale_users"], sizes.users)
    count, tried = len(second.base_models), len(values["ranker"]["popularity_weights"])
    cells = asked * min(sizes.items, (count + 1) * values["ranker"]["candidates"])
    scoring = _scoring_seconds(second)
    learning = Work(
        count + 1,
        peak_bytes=max(64.0 * sizes.items * (4 * count + 30), 20.0 * scaled * sizes.items)
        + cells * (90.0 + 16 * count),
        moves=40.0 * asked * sizes.items * (count + 1) + 200.0 * tried * cells * count,
        seconds=(asked + 3 * scaled + 7 * values["evidence_users"]) * scoring,
    )
    again = Work(
        count + 1,
        peak_bytes=20.0 * scaled * sizes.items,
        moves=4.0 * scaled * sizes.items,
        seconds=2 * scaled * scoring,
    )
    return learning, again


def n_questions(split: Split, per_user: int, at_most: int) -> int:
    """What a blend learns from: moments of the validation window, or its questions where users have a clock each."""
    if split.known_until is None:
        return min(at_most, len(split.validation))
    events = split.before_test.interactions
    late = np.bincount(events.users[events.timestamps >= split.known_until])
    return min(at_most, int(np.minimum(late, per_user).sum()))


def _scoring_seconds(fit: Fit) -> float:
    """What one history takes all components."""
    users = np.unique(fit.dataset.interactions.users)
    drawn = np.random.default_rng(fit.options.seed).choice(users, min(len(users), _REHEARSED_USERS), replace=False)
    histories = fit.dataset.histories(np.sort(drawn))
    watch = Stopwatch()
    for model in fit.base_models.values():
        model.score(histories)
    return watch.lap() / max(1, len(drawn))


def _alike(work: Callable[[Sizes, Mapping[str, Any], bool], Work]) -> Callable[[Fit, Fit], tuple[Work, Work]]:
    """A family whose refit is a fit anew. The flag says that a first fit has loaded what is needed."""

    def both(first: Fit, second: Fit) -> tuple[Work, Work]:
        values = first.config.model_dump()
        return work(first.sizes, values, False), work(second.sizes, values, True)

    return both


WORK: dict[str, Callable[[Fit, Fit], tuple[Work, Work]]] = {
    "popularity": _alike(_popularity),
    "item-knn": _alike(_item_knn),
    "collaborative": _alike(_collaborative),
    "content-based": _alike(_content_based),
    "deep-learning": _deep_learning,
    "hybrid": _hybrid,
}
"""What the fit before the validation window and the one before the test window are."""
