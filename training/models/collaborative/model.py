"""The collaborative family: which items the same users choose and in what order, without any metadata."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import scipy.sparse as sp
from pydantic import AliasChoices, Field

from training.data.dataset import MIN_REPEAT_SHARE, Dataset
from training.models.coconsumption import item_vectors, prior_scores, training_matrix
from training.models.collaborative.ease import ease_weights
from training.models.collaborative.factorisation import factorise
from training.models.collaborative.transitions import transition_weights
from training.models.collaborative.workload import collaborative_workload
from training.models.contract import RuntimeOptions
from training.models.kernels import Dense, Factors, Kernel, Sparse, strongest
from training.models.linear import LinearConfig, LinearRecommender, Term
from training.models.workload import DataSizes, Workload


class CollaborativeConfig(LinearConfig):
    """Hyper-parameters of the three methods, of which the size of the catalogue chooses one."""

    decay_half_lives: tuple[float, ...] = Field(
        default=(1.0, 20.0),
        validation_alias=AliasChoices("decay_half_lives", "memories"),
        description="half-lives, in events, of the decayed histories that predict the next item; none: EASE",
    )
    transition_regularisation: float = Field(
        default=300.0, gt=0, validation_alias=AliasChoices("transition_regularisation", "memory_regularisation")
    )
    transition_items: int = Field(
        default=8_000,
        ge=0,
        validation_alias=AliasChoices("transition_items", "memory_items"),
        description="largest number of items times half-lives for that regression, whose cost grows with its cube",
    )
    regularisation: float = Field(default=1000.0, gt=0, description="ridge of EASE")
    closed_form_items: int = Field(default=20_000, ge=0, description="largest catalogue of which EASE covers all items")
    head_items: int = Field(default=8_000, ge=0, description="most chosen items that EASE covers of a larger catalogue")
    dense_items: int = Field(
        default=4_000, ge=0, description="largest catalogue for which the weight of every pair is kept"
    )
    kept_weights: int = Field(
        default=300, ge=1, description="largest weights per item that are kept of a larger catalogue"
    )
    repeat_weight: float = Field(
        default=0.5,
        ge=0,
        validation_alias=AliasChoices("repeat_weight", "repetition"),
        description="gain of an item per recent event of the user with it, where users repeat items",
    )
    factors: int = Field(
        default=32, ge=1, description="width of the factorisation that covers catalogues too large for EASE"
    )
    factor_regularisation: float = Field(default=1.0, gt=0)
    confidence: float = Field(default=5.0, gt=0, description="weight of an observed pair over an unobserved one")
    iterations: int = Field(default=15, ge=1)
    dimensions: int = Field(default=64, ge=1, description="width of the vectors that `similar` compares")


class Collaborative(LinearRecommender):
    """Item-to-item weights, learned by the method that the size of the catalogue allows.

    Up to `transition_items`: a regression of the next item on decayed histories. Above that: EASE, plus a term for
    repeat consumption, which EASE's zero diagonal leaves out. Above `closed_form_items`: EASE among the most chosen
    items, and a factorisation with a linear fold-in for the scores of all other items.
    """

    family = "collaborative"
    Config = CollaborativeConfig
    config: CollaborativeConfig

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        config = self.config
        matrix = training_matrix(dataset)
        if config.decay_half_lives and dataset.n_items * len(config.decay_half_lives) <= config.transition_items:
            weights = transition_weights(
                dataset, config.decay_half_lives, config.transition_regularisation, options.seed
            )
            self.terms = tuple(
                Term(Dense(one), half_life) for one, half_life in zip(weights, config.decay_half_lives, strict=True)
            )
        else:
            kernels = self._closed_form(training_matrix(dataset, whole=True), options)
            self.terms = tuple(Term(kernel, config.half_life) for kernel in kernels)
            if config.repeat_weight and dataset.repeat_share >= MIN_REPEAT_SHARE:
                same = sp.csr_array(config.repeat_weight * sp.eye_array(dataset.n_items, dtype=np.float32))
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
