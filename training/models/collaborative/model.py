"""The collaborative family: who chose what together and in what order, and nothing about what it is."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from training.data.dataset import Dataset
from training.models.coconsumption import item_vectors, prior_scores, training_matrix
from training.models.collaborative.ease import ease_weights
from training.models.collaborative.factorisation import factorise
from training.models.collaborative.transitions import transition_weights
from training.models.collaborative.workload import collaborative_workload
from training.models.contract import RuntimeOptions
from training.models.kernels import Dense, Factors, Kernel, Sparse, strongest
from training.models.linear import LinearConfig, LinearRecommender, Term
from training.models.workload import DataSizes, Workload

SELDOM = 0.2
"""Share of events that repeat an item of their user, under which nothing is learned of repetition."""


class CollaborativeConfig(LinearConfig):
    memories: tuple[float, ...] = Field(
        default=(1.0, 20.0), description="half-lives, in items, of the memories whose next item is learned; none: EASE"
    )
    memory_regularisation: float = Field(default=300.0, gt=0)
    memory_items: int = Field(
        default=8_000, ge=0, description="largest catalogue times memories for that; cost grows with its cube"
    )
    regularisation: float = Field(default=1000.0, gt=0, description="of EASE")
    closed_form_items: int = Field(default=20_000, ge=0, description="largest catalogue that EASE covers as a whole")
    head_items: int = Field(default=8_000, ge=0, description="most chosen items that EASE covers of a larger one")
    dense_items: int = Field(default=4_000, ge=0, description="largest catalogue that keeps every pair's weight")
    kept_weights: int = Field(default=300, ge=1, description="weights kept per item past that, by magnitude")
    repetition: float = Field(
        default=0.5,
        ge=0,
        description="what an item says for itself each time it was chosen of late, where items are again",
    )
    factors: int = Field(default=32, ge=1, description="width of the factorisation past the closed form")
    factor_regularisation: float = Field(default=1.0, gt=0)
    confidence: float = Field(default=5.0, gt=0, description="weight of a seen pair over an unseen one")
    iterations: int = Field(default=15, ge=1)
    dimensions: int = Field(default=64, ge=1, description="width of the vectors that `similar` compares")


class Collaborative(LinearRecommender):
    """Linear in the history, in the form that the catalogue's size allows.

    Up to `memory_items`: what follows a short and a long memory. Past that EASE, with repetition beside it, which its
    zero diagonal leaves out. Past `closed_form_items` EASE among the items that are chosen most, and scores of all
    others by a factorisation with a linear fold-in.
    """

    family = "collaborative"
    Config = CollaborativeConfig
    config: CollaborativeConfig

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        config = self.config
        matrix = training_matrix(dataset)
        if config.memories and dataset.n_items * len(config.memories) <= config.memory_items:
            weights = transition_weights(dataset, config.memories, config.memory_regularisation, options.seed)
            self.terms = tuple(Term(Dense(one), memory) for one, memory in zip(weights, config.memories, strict=True))
        else:
            kernels = self._closed_form(training_matrix(dataset, whole=True), options)
            self.terms = tuple(Term(kernel, config.half_life) for kernel in kernels)
            if config.repetition and 1 - dataset.seen.nnz / len(dataset.interactions) >= SELDOM:
                same = sp.csr_array(config.repetition * sp.eye_array(dataset.n_items, dtype=np.float32))
                self.terms += (Term(Sparse(same), None, int(dataset.interactions.timestamps.max())),)
        self.base = prior_scores(dataset, config.prior)
        self.vectors = item_vectors(matrix, config.dimensions, options.seed)
        return self

    @classmethod
    def workload(
        cls,
        sizes: DataSizes,
        config: CollaborativeConfig,
        refit: bool = False,
        base_models: Mapping[str, Workload] | None = None,
    ) -> Workload:
        return collaborative_workload(sizes, config)

    def _closed_form(self, matrix: sp.csr_array, options: RuntimeOptions) -> list[Kernel]:
        config, n_items = self.config, matrix.shape[1]
        if n_items <= config.dense_items and n_items <= config.closed_form_items:
            return [Dense(ease_weights(matrix, config.regularisation))]
        if n_items <= config.closed_form_items:
            return [Sparse(strongest(ease_weights(matrix, config.regularisation), config.kept_weights))]
        folded = factorise(
            matrix, config.factors, config.factor_regularisation, config.confidence, config.iterations, options
        )
        if not config.head_items:
            return [folded]
        chosen = np.diff(sp.csc_array(matrix).indptr)
        head = np.sort(np.argsort(-chosen, kind="stable")[: config.head_items])
        weights = ease_weights(sp.csr_array(matrix[:, head]), config.regularisation)
        within = strongest(weights, config.kept_weights).tocoo()
        spread = sp.csr_array((within.data, (head[within.row], head[within.col])), shape=(n_items, n_items))
        for_tail = folded.right.copy()
        for_tail[head] = 0
        return [Sparse(spread), Factors(folded.left, for_tail)]
