"""Weights of the label mixture: how much each kind of label tells about a user's next choices."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from feature_store import columns as c
from training.data.dataset import Dataset
from training.models.content_based.labels import Blocks
from training.models.contract import Doubles, Mask
from training.models.profiles import build_profiles

POPULARITY = "popularity"
"""Name of the mixture component that uses no label."""
FEWEST_USERS = 20
"""With fewer users who have a history and later choices, nothing is learned and all components weigh the same."""
ROUNDS = 200
NEGLIGIBLE = 1e-3
"""Components with a smaller weight are left out."""
_CHOICES_AT_ONCE = 20_000


@dataclass(frozen=True)
class MixtureWeights:
    """P(item | user) = sum over blocks of w * sum over labels of P(label | user) P(item | label), plus w0 P(item)."""

    weights: dict[str, float]  # of the kept blocks and of POPULARITY; they sum to 1
    mass: float  # mean weight of the histories that they were learned from


def fit_mixture_weights(
    dataset: Dataset,
    blocks: Blocks,
    rates: Doubles,
    late: Dataset,
    half_life: float | None,
    max_users: int,
    seed: int,
) -> MixtureWeights:
    """The weights that maximise the likelihood of users' later choices, by expectation maximisation.

    This is the interpolation of language models on held-out text (Jelinek and Mercer, 1980), whose likelihood has a
    single maximum. Every user has the same weight.

    Args:
        dataset: the earlier events.
        blocks: labels of its catalogue.
        rates: float64 [n_items], events to expect of each item after it.
        late: the later events of the same users.
        half_life: of items in a history, in distinct items.
        max_users: the largest number of users that are drawn.
        seed: draws them.
    """
    names = [*blocks, POPULARITY]
    users = np.intersect1d(dataset.interactions.users, late.interactions.users)
    if len(users) > max_users:
        users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
    if len(users) < FEWEST_USERS:
        return MixtureWeights(dict.fromkeys(names, 1 / len(names)), 1.0)
    profiles = build_profiles(dataset.histories(users), dataset.n_items, half_life).matrix(dataset.n_items)
    mass = np.asarray(profiles.sum(axis=1)).ravel()
    shares = _scaled(profiles, rows=_inverse(mass))
    chosen = late.seen[users].tocoo()
    likely = np.empty((len(chosen.row), len(names)))
    for column, block in enumerate(blocks.values()):
        likely[:, column] = _likelihoods(shares @ block, given_label(block, rates), chosen.row, chosen.col)
    likely[:, -1] = rates[chosen.col] / (rates.sum() or 1.0)
    possible = likely.sum(axis=1) > 0
    counts = (1 / np.bincount(chosen.row, minlength=len(users))[chosen.row])[possible]
    weights = (
        _maximise(likely[possible], counts / counts.sum()) if possible.any() else np.full(len(names), 1 / len(names))
    )
    weights = np.where(weights < NEGLIGIBLE, 0, weights)
    weights /= weights.sum()
    return MixtureWeights(
        {name: float(weight) for name, weight in zip(names, weights, strict=True) if weight or name == POPULARITY},
        float(mass.mean()),
    )


def recent_rates(dataset: Dataset, half_life_days: float, horizon_days: float) -> Doubles:
    """Events to expect of each item within a horizon at its recent rate, float64 [n_items]; 0 for cold items.

    Event weights halve every `half_life_days`; their total is scaled to that of the last `horizon_days`. The data set
    must have an event.
    """
    events = dataset.interactions
    age = (events.timestamps.max() - events.timestamps) / c.MICROS_PER_DAY
    mass = np.bincount(events.items, events.weights * 0.5 ** (age / half_life_days), dataset.n_items)
    late = float(events.weights[age < horizon_days].sum())
    return np.asarray(mass * late / (mass.sum() or 1.0), dtype=np.float64)


def given_label(block: sp.csr_array, rates: Doubles) -> sp.csr_array:
    """P(item | label), [n_items, n_labels]: the rate of an item divided by the sum over the label's items."""
    return _scaled(block, rows=rates, columns=_inverse(block.T @ rates))


def label_weights(blocks: Blocks, weights: Mapping[str, float], rates: Doubles) -> Doubles:
    """The weight of each label in a score, per expected event of the scored item, float64 [d], blocks side by side.

    It is the weight of the label's block divided by the summed rates of the label's items: rare labels weigh more.
    """
    return np.concatenate([np.zeros(0), *(weights[name] * _inverse(block.T @ rates) for name, block in blocks.items())])


def side_by_side(blocks: Blocks, n: int) -> sp.csr_array:
    """The labels of all blocks in one matrix, float32 [n, d]."""
    if not blocks:
        return sp.csr_array((n, 0), dtype=np.float32)
    return sp.csr_array(sp.hstack(list(blocks.values()), format="csr", dtype=np.float32))


def boost_for(share: float, warm: Doubles, cold: Doubles) -> float:
    """The factor, at least 1, on the scores of cold items with which they take this share of the places of lists of k.

    warm, cold: float64 [n_users, k], the best scores of other items and of cold items, best first, not negative.
    """
    # A list holds m cold items once the m-th of them beats the (k - m + 1)-th of the others.
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(cold > 0, warm[:, ::-1] / cold, np.inf)
    enters = np.sort(np.maximum.accumulate(needed, axis=1).ravel())
    place = round(share * warm.size)
    if place == 0 or place > len(enters) or not np.isfinite(enters[place - 1]):
        return 1.0
    return max(1.0, float(enters[place - 1]) * (1 + 1e-6))


def best(scores: npt.NDArray[np.floating], columns: Mask, k: int) -> Doubles:
    """The k best scores of each row among these columns, float64 [n, k], best first; 0 where there are fewer."""
    chosen = scores[:, columns]
    chosen = -np.sort(-np.partition(chosen, -k, axis=1)[:, -k:], axis=1) if chosen.shape[1] > k else -np.sort(-chosen)
    return np.pad(chosen, ((0, 0), (0, k - chosen.shape[1]))).astype(np.float64)


def _maximise(likely: Doubles, counts: Doubles) -> Doubles:
    """Component weights [n_components] by EM. likely: [n, n_components] likelihoods; counts: [n], summing to 1."""
    weights = np.full(likely.shape[1], 1 / likely.shape[1])
    for _ in range(ROUNDS):
        joint = likely * weights
        weights = counts @ (joint / joint.sum(axis=1, keepdims=True))
    return weights


def _likelihoods(
    user_labels: sp.csr_array, given: sp.csr_array, rows: npt.NDArray[np.int32], items: npt.NDArray[np.int32]
) -> Doubles:
    """user_labels[rows] @ given[items] of each pair, float64 [n_pairs]."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _CHOICES_AT_ONCE):
        part = slice(start, start + _CHOICES_AT_ONCE)
        found[part] = np.asarray(user_labels[rows[part]].multiply(given[items[part]]).sum(axis=1)).ravel()
    return found


def _scaled(matrix: sp.csr_array, rows: Doubles | None = None, columns: Doubles | None = None) -> sp.csr_array:
    """The matrix with its rows and columns multiplied by these factors."""
    scaled = matrix if rows is None else sp.diags_array(rows) @ matrix
    return sp.csr_array(scaled if columns is None else scaled @ sp.diags_array(columns))


def _inverse(values: npt.NDArray[np.floating]) -> Doubles:
    """1 / value; 0 where the value is not positive."""
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)
