"""Content as labels: what a user chooses, times what is chosen of it lately."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import Field

from training.data.dataset import Dataset
from training.models.cold_start.label_mixture import (
    POPULARITY,
    Doubles,
    Mixture,
    best,
    labels_say,
    learn_mixture,
    lift_to,
    recent_rates,
    side_by_side,
)
from training.models.cold_start.rate import Arrivals
from training.models.content_based.encoder import ContentEncoder
from training.models.content_based.labels import Blocks, LabelConfig, LabelReader
from training.models.contract import FloatMatrix, Mask, ModelConfig, Positions
from training.models.kernels import Factors, Kernel, SparseFactors
from training.models.profiles import build_profiles

RATES_FILE = "rates.npz"
FACTS_FILE = "labelled.json"
LISTED = 10
"""Length of the lists that newcomers get a share of."""
LIFT_USERS = 256
NARROW = 256
"""Labels up to which dense arrays are faster than sparse ones."""


class MixtureConfig(ModelConfig):
    """How labels are weighed, and how much room newcomers get."""

    labels: LabelConfig = LabelConfig()
    rate_half_life_days: float = Field(
        default=14.0, gt=0, description="age at which an event says half as much of how often an item is chosen now"
    )
    horizon_days: float = Field(default=30.0, gt=0, description="how far ahead items are expected to be chosen")
    newcomers: float = Field(
        default=0.1, ge=0, lt=1, description="share of the places of lists for items that have no event yet"
    )
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of the newest events that the weights of labels are learned from"
    )
    max_users: int = Field(default=1_000, ge=1, description="users asked when the weights are learned")


class LabelMixture:
    """P(item | user) = sum over labels of P(label | user) P(item | label), a kernel among items and a base.

    P(label | user) is how often the user's items have the label. P(item | label) is how often an item is chosen of
    late, among the items with that label; an item that nobody has chosen yet is expected to do as such items did
    earlier (`Arrivals`), times a lift that gives newcomers their share of the lists.
    Scores are the mixture times the weight of the history and the number of items, so that 1 is an average item.
    """

    reader: LabelReader
    arrivals: Arrivals
    mixture: Mixture
    says: Doubles  # [d] what an item of a history says through each label
    rates: Doubles  # [n_items] events to expect, newcomers lifted
    lift: float  # of newcomers
    newcomers: Mask  # bool [n_items]
    base_unit: float  # score of an empty history for each expected event
    kernel: Kernel

    def __init__(self, config: MixtureConfig, half_life: float | None) -> None:
        self.config, self.half_life = config, half_life

    @property
    def base(self) -> npt.NDArray[np.float32]:
        """Scores of an empty history, float32 [n_items]."""
        return (self.base_unit * self.rates).astype(np.float32)

    def fit(self, dataset: Dataset, encoder: ContentEncoder, seed: int) -> Self:
        """Learn from a log that is not empty. encoder: fitted on the catalogue."""
        self.reader = LabelReader(self.config.labels)
        blocks = self.reader.fit(encoder, dataset.items.metadata)
        self.mixture = self._learn(dataset, blocks, encoder, seed)
        self.reader.keep(self.mixture.weights)
        blocks = {name: block for name, block in blocks.items() if name in self.mixture.weights}
        self.arrivals = Arrivals.learn(dataset, encoder.fields, self.config.horizon_days)
        rates = self._rates(dataset, self.arrivals)
        self.newcomers = newcomers = _newcomers(dataset)
        self.says = dataset.n_items * labels_say(blocks, self.mixture.weights, rates)
        self.base_unit = self.mixture.weights[POPULARITY] * self.mixture.mass * dataset.n_items / (rates.sum() or 1.0)
        self.lift = 1.0
        self._lay(blocks, rates)
        if newcomers.any():
            self.lift = self._find_lift(dataset, newcomers)
            self._lay(blocks, np.where(newcomers, self.lift * rates, rates))
        return self

    def record(self) -> dict[str, Any]:
        """The weights of the kinds of labels, and what newcomers are expected to get."""
        weights = {f"weight_{name}": weight for name, weight in self.mixture.weights.items()}
        return {"newcomer_lift": self.lift, "newcomer_rate": self.arrivals.rate, **weights}

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]], encoder: ContentEncoder) -> Self:
        """New items are newcomers; an edited one keeps how often it is expected to be chosen."""
        wider = type(self)(self.config, self.half_life)
        wider.__dict__.update(self.__dict__)
        n_items = len(self.rates)
        new = [item for position, item in zip(positions, metadata, strict=True) if position >= n_items]
        wider.rates = np.concatenate([self.rates, self.lift * self.arrivals.expected(new)])
        wider.newcomers = np.concatenate([self.newcomers, np.ones(len(new), dtype=bool)])
        rows = np.arange(len(wider.rates))  # where each item lies once what changed is appended
        rows[positions] = n_items + np.arange(len(positions))
        labels = side_by_side(self.reader.read(encoder, metadata), len(positions))
        wider.kernel = _appended(self.kernel, _kernel(labels, self.says, wider.rates[positions]), rows)
        return wider

    def unlifted(self) -> Self:
        """The same with newcomers as they are expected to be chosen, whatever share of lists that gives them."""
        plain = type(self)(self.config, self.half_life)
        plain.__dict__.update(self.__dict__)
        factors = np.where(self.newcomers, 1 / self.lift, 1.0)
        plain.lift, plain.rates, plain.kernel = 1.0, self.rates * factors, _scaled(self.kernel, factors)
        return plain

    def save(self, path: Path) -> None:
        """Write all but the kernel into the folder `path`."""
        self.reader.save(path)
        facts = {
            "arrivals": self.arrivals.model_dump(),
            "weights": self.mixture.weights,
            "mass": self.mixture.mass,
            "lift": self.lift,
            "base_unit": self.base_unit,
        }
        (path / FACTS_FILE).write_text(json.dumps(facts, indent=2))
        np.savez(path / RATES_FILE, rates=self.rates, says=self.says, newcomers=self.newcomers)

    @classmethod
    def load(cls, path: Path, config: MixtureConfig, half_life: float | None, kernel: Kernel) -> Self:
        """What `save` wrote, over the kernel that was kept elsewhere."""
        found = cls(config, half_life)
        found.kernel, found.reader = kernel, LabelReader.load(path)
        facts = json.loads((path / FACTS_FILE).read_text())
        found.arrivals = Arrivals.model_validate(facts["arrivals"])
        found.mixture = Mixture(facts["weights"], facts["mass"])
        found.lift, found.base_unit = facts["lift"], facts["base_unit"]
        with np.load(path / RATES_FILE, allow_pickle=False) as arrays:
            found.rates, found.says, found.newcomers = arrays["rates"], arrays["says"], arrays["newcomers"]
        return found

    def _learn(self, dataset: Dataset, blocks: Blocks, encoder: ContentEncoder, seed: int) -> Mixture:
        """The weights, out of time: what was known before the newest events speaks for these."""
        times = dataset.interactions.timestamps
        since = np.quantile(times, 1 - self.config.held_out, method="higher")
        past, late = dataset.where(times < since), dataset.where(times >= since)
        if not len(past.interactions):
            past, late = dataset, dataset.where(times > times.max())
        rates = self._rates(past, Arrivals.learn(past, encoder.fields, self.config.horizon_days))
        return learn_mixture(past, blocks, rates, late, self.half_life, self.config.max_users, seed)

    def _rates(self, dataset: Dataset, arrivals: Arrivals) -> Doubles:
        """Events to expect of each item within the horizon, [n_items]."""
        recent = recent_rates(dataset, self.config.rate_half_life_days, arrivals.horizon_days)
        return np.where(_newcomers(dataset), arrivals.expected(dataset.items.metadata), recent)

    def _lay(self, blocks: Blocks, rates: Doubles) -> None:
        self.rates = rates
        kernel = _kernel(side_by_side(blocks, len(rates)), self.says, rates)
        narrow = len(self.says) <= NARROW
        self.kernel = Factors(kernel.left.toarray(), kernel.right.toarray()) if narrow else kernel

    def _find_lift(self, dataset: Dataset, newcomers: Mask) -> float:
        """What gives newcomers their share of lists without what was seen."""
        users = np.unique(dataset.interactions.users)
        if len(users) > LIFT_USERS:
            users = np.sort(np.random.default_rng(0).choice(users, LIFT_USERS, replace=False))
        profiles = build_profiles(dataset.histories(users), dataset.n_items, self.half_life).matrix(dataset.n_items)
        scores: FloatMatrix = self.kernel.propagate(profiles) + self.base
        scores = np.where(dataset.seen[users].toarray(), 0, scores)
        found = [best(scores, columns, LISTED) for columns in (~newcomers, newcomers)]
        return lift_to(self.config.newcomers, found[0], found[1])


def _newcomers(dataset: Dataset) -> Mask:
    """Items without an event, bool [n_items]."""
    return np.bincount(dataset.interactions.items, minlength=dataset.n_items) == 0


def _kernel(labels: sp.csr_array, says: Doubles, rates: Doubles) -> SparseFactors:
    """K[j, i] = rate of i times what j says through the labels that both have. labels: [n, d]."""
    left = sp.csr_array(labels @ sp.diags_array(says.astype(np.float32)))
    right = sp.csr_array(sp.diags_array(rates.astype(np.float32)) @ labels)
    return SparseFactors(left, right)


def _scaled(kernel: Kernel, factors: Doubles) -> Kernel:
    """The kernel with what is said for each item multiplied, [n_items]."""
    if isinstance(kernel, SparseFactors):
        return SparseFactors(kernel.left, sp.csr_array(sp.diags_array(factors.astype(np.float32)) @ kernel.right))
    if isinstance(kernel, Factors):
        return Factors(kernel.left, kernel.right * factors.astype(np.float32)[:, None])
    raise TypeError(f"{kernel.form} has no factors")


def _appended(kernel: Kernel, fresh: SparseFactors, rows: npt.NDArray[np.int64]) -> Kernel:
    """The items at `rows` once those of `fresh` are appended to those of `kernel`, which has factors."""
    if isinstance(kernel, SparseFactors):
        left = sp.vstack([kernel.left, fresh.left], format="csr")
        right = sp.vstack([kernel.right, fresh.right], format="csr")
        return SparseFactors(left[rows], right[rows])
    if isinstance(kernel, Factors):
        left, right = fresh.left.toarray(), fresh.right.toarray()
        return Factors(np.vstack([kernel.left, left])[rows], np.vstack([kernel.right, right])[rows])
    raise TypeError(f"nothing can be appended to {kernel.form}")
