"""Baseline: items whose users overlap most with the users of the history's items."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field

from training.data.dataset import Dataset
from training.models.coconsumption import item_vectors, prior_scores, training_matrix
from training.models.contract import RuntimeOptions
from training.models.kernels import Sparse
from training.models.linear import LinearConfig, LinearRecommender
from training.models.neighbours import neighbours_workload, shrunk_cosines
from training.models.workload import LOOKUP, DataSizes, Workload, item_vectors_workload


class ItemKnnConfig(LinearConfig):
    """Hyper-parameters of the neighbourhoods."""

    neighbours: int = Field(default=100, ge=1, description="neighbours that are kept per item")
    shrinkage: float = Field(default=20.0, ge=0, description="added to the denominator of the cosine")
    dimensions: int = Field(default=64, ge=1, description="width of the vectors that `similar` compares")


class ItemKnn(LinearRecommender):
    """Neighbourhood model with the shrunk cosine of two items' users (`training.models.neighbours`)."""

    family = "item-knn"
    memory_advice = "lower `dimensions` (the vectors of `similar`) or `neighbours`"
    Config = ItemKnnConfig
    config: ItemKnnConfig

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        matrix = training_matrix(dataset)
        self.kernel = Sparse(shrunk_cosines(matrix, self.config.neighbours, self.config.shrinkage))
        self.base = prior_scores(dataset, self.config.prior)
        self.vectors = item_vectors(matrix, self.config.dimensions, options.seed)
        return self

    @classmethod
    def workload(
        cls,
        sizes: DataSizes,
        config: ItemKnnConfig,
        refit: bool = False,
        base_models: Mapping[str, Workload] | None = None,
    ) -> Workload:
        prior = Workload(sizes.items, sizes.history_events * LOOKUP)
        return neighbours_workload(sizes, config.neighbours) + prior + item_vectors_workload(sizes, config.dimensions)
