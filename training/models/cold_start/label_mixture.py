"""How much each kind of label says of what a user chooses next, learned from what users chose lately."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store import columns as c
from training.data.dataset import Dataset
from training.models.content_based.labels import Blocks
from training.models.contract import Mask
from training.models.profiles import build_profiles

Doubles = npt.NDArray[np.float64]
POPULARITY = "popularity"
"""The component of a mixture that no label belongs to."""
FEWEST_USERS = 20
"""Users with a history and later choices, under which nothing is learned and all kinds of labels count alike."""
ROUNDS = 200
NEGLIGIBLE = 1e-3
"""A weight under which a kind of label is left out."""
_CHOICES_AT_ONCE = 20_000


@dataclass(frozen=True)
class Mixture:
    """P(item | user) = sum over blocks of w * sum over labels of P(label | user) P(item | label), plus w0 P(item)."""

    weights: dict[str, float]  # of the blocks that have any and of POPULARITY; they sum to 1
    mass: float  # mean weight of the histories they were learned with


def learn_mixture(
    dataset: Dataset,
    blocks: Blocks,
    rates: Doubles,
    late: Dataset,
    half_life: float | None,
    max_users: int,
    seed: int,
) -> Mixture:
    """The weights under which what users chose later was likeliest, by expectation maximisation.

    It is the interpolation of language models on held-out text (Jelinek and Mercer, 1980), whose likelihood has one
    maximum; every user counts alike.

    Args:
        dataset: what was known before.
        blocks: of its catalogue.
        rates: [n_items], events to expect of each item after it.
        late: what the same users chose after it.
        half_life: of items in a history.
        max_users: at most so many are asked.
        seed: draws them.
    """
    names = [*blocks, POPULARITY]
    users = np.intersect1d(dataset.interactions.users, late.interactions.users)
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
    if len(users) < FEWEST_USERS:
        return Mixture(dict.fromkeys(names, 1 / len(names)), 1.0)
    profiles = build_profiles(dataset.histories(users), dataset.n_items, half_life).matrix(dataset.n_items)
    mass = np.asarray(profiles.sum(axis=1)).ravel()
    shares = _scaled(profiles, rows=_inverse(mass))
    chosen = late.seen[users].tocoo()
    likely = np.empty((len(chosen.row), len(names)))
    for column, block in enumerate(blocks.values()):
        likely[:, column] = _likelihoods(shares @ block, given_label(block, rates), chosen.row, chosen.col)
    likely[:, -1] = rates[chosen.col] / (rates.sum() or 1.0)
    told = likely.sum(axis=1) > 0
    counts = (1 / np.bincount(chosen.row, minlength=len(users))[chosen.row])[told]
    weights = _maximise(likely[told], counts / counts.sum()) if told.any() else np.full(len(names), 1 / len(names))
    weights = np.where(weights < NEGLIGIBLE, 0, weights)
    weights /= weights.sum()
    return Mixture(
        {name: float(weight) for name, weight in zip(names, weights, strict=True) if weight or name == POPULARITY},
        float(mass.mean()),
    )


def recent_rates(dataset: Dataset, half_life_days: float, horizon_days: float) -> Doubles:
    """Events to expect of each item within a horizon if it goes on as of late, float64 [n_items]; 0 without events.

    Events are halved every `half_life_days`; their sum is scaled to the events of the last `horizon_days`.
    """
    events = dataset.interactions
    age = (events.timestamps.max() - events.timestamps) / c.MICROS_PER_DAY
    mass = np.bincount(events.items, events.weights * 0.5 ** (age / half_life_days), dataset.n_items)
    late = float(events.weights[age < horizon_days].sum())
    return np.asarray(mass * late / (mass.sum() or 1.0), dtype=np.float64)


def given_label(block: sp.csr_array, rates: Doubles) -> sp.csr_array:
    """P(item | label), [n_items, n_labels]: the rates of a label's items, over their sum."""
    return _scaled(block, rows=rates, columns=_inverse(block.T @ rates))


def labels_say(blocks: Blocks, weights: Mapping[str, float], rates: Doubles) -> Doubles:
    """What an item of a history says through each label for an expected event, [d], labels side by side.

    That is the weight of the label's kind over the rates of its items: the rarer a label, the more it says.
    """
    return np.concatenate([np.zeros(0), *(weights[name] * _inverse(block.T @ rates) for name, block in blocks.items())])


def side_by_side(blocks: Blocks, n: int) -> sp.csr_array:
    """The labels of all blocks, float32 [n, d]."""
    if not blocks:
        return sp.csr_array((n, 0), dtype=np.float32)
    return sp.csr_array(sp.hstack(list(blocks.values()), format="csr", dtype=np.float32))


def lift_to(share: float, known: Doubles, newcomers: Doubles) -> float:
    """What scores of newcomers are multiplied by, at least 1, for them to take this share of the places of lists of k.

    known, newcomers: [n_users, k] the best scores of other items and of newcomers, best first, not negative.
    """
    # With m newcomers in a list, the m-th of them beats the (k - m + 1)-th of the others: the list has at least m
    # from the lift where it does.
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(newcomers > 0, known[:, ::-1] / newcomers, np.inf)
    enters = np.sort(np.maximum.accumulate(needed, axis=1).ravel())
    place = round(share * known.size)
    if place == 0 or place > len(enters) or not np.isfinite(enters[place - 1]):
        return 1.0
    return max(1.0, float(enters[place - 1]) * (1 + 1e-6))


def best(scores: npt.NDArray[np.floating], columns: Mask, k: int) -> Doubles:
    """The k best scores of each row among these columns, best first; 0 where there are fewer. [n, k]."""
    chosen = scores[:, columns]
    chosen = -np.sort(-np.partition(chosen, -k, axis=1)[:, -k:], axis=1) if chosen.shape[1] > k else -np.sort(-chosen)
    return np.pad(chosen, ((0, 0), (0, k - chosen.shape[1]))).astype(np.float64)


def _maximise(likely: Doubles, counts: Doubles) -> Doubles:
    weights = np.full(likely.shape[1], 1 / likely.shape[1])
    for _ in range(ROUNDS):
        owed = likely * weights
        weights = counts @ (owed / owed.sum(axis=1, keepdims=True))
    return weights


def _likelihoods(
    spoken: sp.csr_array, given: sp.csr_array, rows: npt.NDArray[np.int32], items: npt.NDArray[np.int32]
) -> Doubles:
    """spoken[rows] @ given[items] of each pair, [n_pairs]."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _CHOICES_AT_ONCE):
        part = slice(start, start + _CHOICES_AT_ONCE)
        found[part] = np.asarray(spoken[rows[part]].multiply(given[items[part]]).sum(axis=1)).ravel()
    return found


def _scaled(matrix: sp.csr_array, rows: Doubles | None = None, columns: Doubles | None = None) -> sp.csr_array:
    scaled = matrix if rows is None else sp.diags_array(rows) @ matrix
    return sp.csr_array(scaled if columns is None else scaled @ sp.diags_array(columns))


def _inverse(values: npt.NDArray[np.floating]) -> Doubles:
    """1 / value, 0 where the value is none."""
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)
