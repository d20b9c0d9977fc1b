"""The label mixture: scores an item by the user's labels and by its recent or, for a cold item, its expected rate."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.data.dataset import Dataset
from training.models.coconsumption import unit_rows
from training.models.cold_start.items import cold_items
from training.models.cold_start.mixture_weights import (
    POPULARITY,
    MixtureWeights,
    best,
    boost_for,
    fit_mixture_weights,
    label_weights,
    recent_rates,
    side_by_side,
)
from training.models.cold_start.rate import ColdStartRate
from training.models.content_based.config import LabelMixtureConfig
from training.models.content_based.encoder import ContentEncoder
from training.models.content_based.labels import Blocks, LabelReader
from training.models.content_based.model import ContentBased
from training.models.contract import Doubles, FloatMatrix, Mask, Positions, RuntimeOptions
from training.models.kernels import Factors, Kernel, SparseFactors
from training.models.profiles import build_profiles
from training.models.stored_names import present_names, stored_file

DESCRIPTION_FILE = "label_mixture.json"
ARRAYS_FILE = "label_mixture.npz"
_EARLIER_FILES = {DESCRIPTION_FILE: "labelled.json", ARRAYS_FILE: "rates.npz"}
_EARLIER_NAMES = {
    "arrivals": "cold_start_rate",
    "lift": "cold_item_boost",
    "says": "label_weights",
    "newcomers": "cold_items",
}
LISTED = 10
"""Length of the lists that cold items get a share of."""
BOOST_USERS = 256
"""Users whose lists the boost is sized on."""
DENSE_LABELS = 256
"""Up to this many labels dense arrays are faster than sparse ones."""


class LabelMixture(ContentBased):
    """P(item | user) = sum over labels of P(label | user) P(item | label), as a kernel among items and a base.

    P(label | user) is how often the user's items have the label. P(item | label) is the recent rate of the item among
    the items with that label. A cold item has no recent rate. It gets its expected rate (`ColdStartRate`), times a
    boost that gives cold items their share of the lists. Scores are the mixture times the weight of the history and
    the number of items, so that an average item scores 1.
    """

    reader: LabelReader
    cold_start_rate: ColdStartRate
    weights: MixtureWeights
    label_weights: Doubles  # [n_labels] weight of each label in a score
    rates: Doubles  # [n_items] events to expect, with the boost of cold items
    boost: float  # factor on the rates of cold items
    cold_items: Mask  # bool [n_items]
    base_unit: float  # score of an empty history per expected event

    @property
    def mixture_config(self) -> LabelMixtureConfig:
        return self.config.mixture or LabelMixtureConfig()

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        if not len(dataset.interactions):
            raise ValueError("there are no interactions to learn from: record some first")
        config, metadata = self.mixture_config, dataset.items.metadata
        self.encoder = ContentEncoder(self.config.encoder).fit(metadata, options.seed)
        self.vectors = unit_rows(self.encoder.transform(metadata))
        self.reader = LabelReader(config.labels)
        blocks = self.reader.fit(self.encoder, metadata)
        self.weights = self._fit_weights(dataset, blocks, options.seed)
        self.reader.keep(self.weights.weights)
        blocks = {name: block for name, block in blocks.items() if name in self.weights.weights}
        self.cold_start_rate = ColdStartRate.fit(dataset, self.encoder.fields, config.horizon_days)
        rates = self._expected_rates(dataset, self.cold_start_rate)
        self.cold_items = cold = cold_items(dataset.interactions.items, dataset.n_items)
        self.label_weights = dataset.n_items * label_weights(blocks, self.weights.weights, rates)
        self.base_unit = self.weights.weights[POPULARITY] * self.weights.mass * dataset.n_items / (rates.sum() or 1.0)
        self.boost = 1.0
        self._set_rates(blocks, rates)
        if cold.any():
            self.boost = self._find_boost(dataset, cold)
            self._set_rates(blocks, np.where(cold, self.boost * rates, rates))
        return self

    def record(self) -> dict[str, Any]:
        """The weights of the kinds of labels, and the expected rate and boost of cold items."""
        weights = {f"weight_{name}": weight for name, weight in self.weights.weights.items()}
        return {"cold_item_boost": self.boost, "cold_start_rate": self.cold_start_rate.rate, **weights}

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        """New items are cold; an edited item keeps its rate."""
        if not len(positions):
            return self
        model, n_items = self._copy(), self.n_items
        added = int((positions >= n_items).sum())
        model.vectors = np.vstack([self.vectors, np.zeros((added, self.vectors.shape[1]), np.float32)])
        model.vectors[positions] = unit_rows(self.encoder.transform(metadata))
        new = [item for position, item in zip(positions, metadata, strict=True) if position >= n_items]
        model.rates = np.concatenate([self.rates, self.boost * self.cold_start_rate.expected(new)])
        model.cold_items = np.concatenate([self.cold_items, np.ones(len(new), dtype=bool)])
        rows = np.arange(len(model.rates))  # the row of each item once the changed ones are appended
        rows[positions] = n_items + np.arange(len(positions))
        labels = side_by_side(self.reader.read(self.encoder, metadata), len(positions))
        changed = _kernel(labels, self.label_weights, model.rates[positions])
        model._set_kernel(_appended(self.kernel, changed, rows))
        return model

    def as_base_model(self) -> Self:
        """The same model without the boost, so that cold items have the scores of their expected rates."""
        if self.boost == 1:
            return self
        model = self._copy()
        factors = np.where(self.cold_items, 1 / self.boost, 1.0)
        model.boost, model.rates = 1.0, self.rates * factors
        model._set_kernel(_scaled(self.kernel, factors))
        return model

    def _save_state(self, path: Path) -> None:
        self.reader.save(path)
        description = {
            "cold_start_rate": self.cold_start_rate.model_dump(),
            "weights": self.weights.weights,
            "mass": self.weights.mass,
            "cold_item_boost": self.boost,
            "base_unit": self.base_unit,
        }
        (path / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2))
        np.savez(path / ARRAYS_FILE, rates=self.rates, label_weights=self.label_weights, cold_items=self.cold_items)

    def _load_state(self, path: Path) -> None:
        self.reader = LabelReader.load(path)
        files = {name: stored_file(path, name, earlier) for name, earlier in _EARLIER_FILES.items()}
        description = present_names(json.loads(files[DESCRIPTION_FILE].read_text()), _EARLIER_NAMES)
        self.cold_start_rate = ColdStartRate.model_validate(description["cold_start_rate"])
        self.weights = MixtureWeights(description["weights"], description["mass"])
        self.boost, self.base_unit = description["cold_item_boost"], description["base_unit"]
        with np.load(files[ARRAYS_FILE], allow_pickle=False) as stored:
            arrays = present_names(stored, _EARLIER_NAMES)
        self.rates, self.label_weights = arrays["rates"], arrays["label_weights"]
        self.cold_items = arrays["cold_items"]

    def _fit_weights(self, dataset: Dataset, blocks: Blocks, seed: int) -> MixtureWeights:
        """The weights of the blocks: the newest events are predicted from the earlier ones."""
        config, times = self.mixture_config, dataset.interactions.timestamps
        since = np.quantile(times, 1 - config.held_out, method="higher")
        past, late = dataset.where(times < since), dataset.where(times >= since)
        if not len(past.interactions):
            past, late = dataset, dataset.where(times > times.max())
        rates = self._expected_rates(past, ColdStartRate.fit(past, self.encoder.fields, config.horizon_days))
        return fit_mixture_weights(past, blocks, rates, late, self.config.half_life, config.max_users, seed)

    def _expected_rates(self, dataset: Dataset, cold_start_rate: ColdStartRate) -> Doubles:
        """Events to expect of each item within the horizon, float64 [n_items]."""
        recent = recent_rates(dataset, self.mixture_config.rate_half_life_days, cold_start_rate.horizon_days)
        cold = cold_items(dataset.interactions.items, dataset.n_items)
        return np.where(cold, cold_start_rate.expected(dataset.items.metadata), recent)

    def _set_rates(self, blocks: Blocks, rates: Doubles) -> None:
        self.rates = rates
        kernel = _kernel(side_by_side(blocks, len(rates)), self.label_weights, rates)
        dense = len(self.label_weights) <= DENSE_LABELS
        self._set_kernel(Factors(kernel.left.toarray(), kernel.right.toarray()) if dense else kernel)

    def _set_kernel(self, kernel: Kernel) -> None:
        """Set the kernel, and the scores of an empty history from the present rates."""
        self.kernel = kernel
        self.base = (self.base_unit * self.rates).astype(np.float32)

    def _find_boost(self, dataset: Dataset, cold: Mask) -> float:
        """The boost that gives cold items their share of lists without the users' earlier items."""
        users = np.unique(dataset.interactions.users)
        if len(users) > BOOST_USERS:
            users = np.sort(np.random.default_rng(0).choice(users, BOOST_USERS, replace=False))
        histories = dataset.histories(users)
        profiles = build_profiles(histories, dataset.n_items, self.config.half_life).matrix(dataset.n_items)
        scores: FloatMatrix = self.kernel.propagate(profiles) + self.base
        scores = np.where(dataset.seen[users].toarray(), 0, scores)
        warm_scores, cold_scores = (best(scores, columns, LISTED) for columns in (~cold, cold))
        return boost_for(self.mixture_config.cold_item_share, warm_scores, cold_scores)


def _kernel(labels: sp.csr_array, weights: Doubles, rates: Doubles) -> SparseFactors:
    """K[j, i] = rate of item i times the weights of the labels that j and i share. labels: [n, n_labels]."""
    left = sp.csr_array(labels @ sp.diags_array(weights.astype(np.float32)))
    right = sp.csr_array(sp.diags_array(rates.astype(np.float32)) @ labels)
    return SparseFactors(left, right)


def _scaled(kernel: Kernel, factors: Doubles) -> Kernel:
    """The kernel with the scores of each item multiplied by its factor. factors: [n_items]."""
    if isinstance(kernel, SparseFactors):
        return SparseFactors(kernel.left, sp.csr_array(sp.diags_array(factors.astype(np.float32)) @ kernel.right))
    if isinstance(kernel, Factors):
        return Factors(kernel.left, kernel.right * factors.astype(np.float32)[:, None])
    raise TypeError(f"{kernel.form} has no factors")


def _appended(kernel: Kernel, changed: SparseFactors, rows: npt.NDArray[np.int64]) -> Kernel:
    """The items at `rows` after those of `changed` are appended to those of `kernel`, which must have factors."""
    if isinstance(kernel, SparseFactors):
        left = sp.vstack([kernel.left, changed.left], format="csr")
        right = sp.vstack([kernel.right, changed.right], format="csr")
        return SparseFactors(left[rows], right[rows])
    if isinstance(kernel, Factors):
        left, right = changed.left.toarray(), changed.right.toarray()
        return Factors(np.vstack([kernel.left, left])[rows], np.vstack([kernel.right, right])[rows])
    raise TypeError(f"nothing can be appended to {kernel.form}")
