"""Baseline: items whose users overlap most with the users of the history's items."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import Field

from training.data.dataset import Dataset
from training.models.coconsumption import column_norms, item_vectors, prior_scores, training_matrix
from training.models.contract import RuntimeOptions
from training.models.kernels import Sparse, strongest
from training.models.linear import LinearConfig, LinearRecommender
from training.models.workload import LOOKUP, PASS, SPARSE_SPARSE, DataSizes, Workload, item_vectors_workload

CELLS = 16_000_000
"""Cosines that are held at once; bounds the memory of a fit."""


class ItemKnnConfig(LinearConfig):
    """Hyper-parameters of the neighbourhoods."""

    neighbours: int = Field(default=100, ge=1, description="neighbours that are kept per item")
    shrinkage: float = Field(default=20.0, ge=0, description="added to the denominator of the cosine")
    dimensions: int = Field(default=64, ge=1, description="width of the vectors that `similar` compares")


class ItemKnn(LinearRecommender):
    """Neighbourhood model with the shrunk cosine of two items' users (Deshpande and Karypis, 2004)."""

    family = "item-knn"
    Config = ItemKnnConfig
    config: ItemKnnConfig

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        matrix = training_matrix(dataset)
        self.kernel = Sparse(self._neighbours(matrix))
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
        """The cost of the overlaps of all pairs of items, and of the strongest neighbours that each item keeps."""
        kept = sizes.items * min(config.neighbours, sizes.items)
        overlaps = Workload(
            kept + sizes.items,
            sizes.co_pairs * SPARSE_SPARSE + 12.0 * sizes.items**2 * PASS + sizes.history_events * LOOKUP,
            20.0 * min(CELLS, sizes.items**2) + 12.0 * kept + 24.0 * sizes.history_events,
        )
        return overlaps + item_vectors_workload(sizes, config.dimensions)

    def _neighbours(self, matrix: sp.csr_array, cells: int = CELLS) -> sp.csr_array:
        """Shrunk cosines of neighbours, float32 [n_items, n_items]. `cells` bounds the dense entries held at once."""
        chunk = max(1, cells // matrix.shape[1])
        norms = column_norms(matrix)
        columns = matrix.T.tocsr()
        blocks = []
        for start in range(0, matrix.shape[1], chunk):
            rows = np.arange(start, min(start + chunk, matrix.shape[1]))
            overlap: npt.NDArray[np.float32] = (columns[rows] @ matrix).toarray()
            overlap[np.arange(len(rows)), rows] = 0
            cosine = overlap / (norms[rows, None] * norms + self.config.shrinkage)
            blocks.append(strongest(cosine.astype(np.float32), self.config.neighbours))
        return sp.vstack(blocks, format="csr")
