"""The collaborative family: who chose what together, and nothing about what it is."""

from typing import Self

from pydantic import Field

from training.dataset import Dataset
from training.models.coconsumption import item_vectors, prior_scores, training_matrix
from training.models.collaborative.ease import ease_weights
from training.models.collaborative.factorisation import factorise
from training.models.contract import RuntimeOptions
from training.models.kernels import Dense, Sparse, strongest
from training.models.linear import LinearConfig, LinearRecommender


class CollaborativeConfig(LinearConfig):
    regularisation: float = Field(default=300.0, gt=0, description="of the closed form")
    closed_form_items: int = Field(
        default=10_000, ge=0, description="largest catalogue for the closed form; cost grows with its cube"
    )
    dense_items: int = Field(default=4_000, ge=0, description="largest catalogue that keeps every pair's weight")
    kept_weights: int = Field(default=300, ge=1, description="weights kept per item past that, by magnitude")
    factors: int = Field(default=32, ge=1, description="width of the factorisation past the closed form")
    factor_regularisation: float = Field(default=1.0, gt=0)
    confidence: float = Field(default=5.0, gt=0, description="weight of a seen pair over an unseen one")
    iterations: int = Field(default=15, ge=1)
    dimensions: int = Field(default=64, ge=1, description="width of the vectors that `similar` compares")


class Collaborative(LinearRecommender):
    """EASE where the catalogue allows, factorisation past that."""

    family = "collaborative"
    Config = CollaborativeConfig
    config: CollaborativeConfig

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        config = self.config
        matrix = training_matrix(dataset)
        if dataset.n_items > config.closed_form_items:
            self.kernel = factorise(
                matrix, config.factors, config.factor_regularisation, config.confidence, config.iterations, options
            )
        else:
            weights = ease_weights(matrix, config.regularisation)
            dense = dataset.n_items <= config.dense_items
            self.kernel = Dense(weights) if dense else Sparse(strongest(weights, config.kept_weights))
        self.base = prior_scores(dataset, config.prior)
        self.vectors = item_vectors(matrix, config.dimensions, options.seed)
        return self
