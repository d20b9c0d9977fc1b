"""Neighbours of items by shrunk cosine of their users (Deshpande and Karypis, 2004)."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.models.coconsumption import column_norms
from training.models.kernels import strongest
from training.models.workload import LOOKUP, PASS, SPARSE_SPARSE, DataSizes, Workload

COSINES_AT_ONCE = 16_000_000
"""Cosines that are held at once; bounds the memory of a fit."""


def shrunk_cosines(
    matrix: sp.csr_array, neighbours: int, shrinkage: float, cells: int = COSINES_AT_ONCE
) -> sp.csr_array:
    """Cosines of each item with its nearest others, float32 [n_items, n_items]; a pair that few share is shrunk.

    Args:
        matrix: float32 [n_users, n_items].
        neighbours: kept per item.
        shrinkage: added to the denominator of the cosine.
        cells: bound on the dense entries held at once.
    """
    chunk = max(1, cells // matrix.shape[1])
    norms = column_norms(matrix)
    columns = matrix.T.tocsr()
    blocks = []
    for start in range(0, matrix.shape[1], chunk):
        rows = np.arange(start, min(start + chunk, matrix.shape[1]))
        overlap: npt.NDArray[np.float32] = (columns[rows] @ matrix).toarray()
        overlap[np.arange(len(rows)), rows] = 0
        cosine = overlap / (norms[rows, None] * norms + shrinkage)
        blocks.append(strongest(cosine.astype(np.float32), neighbours))
    return sp.vstack(blocks, format="csr")


def neighbours_workload(sizes: DataSizes, neighbours: int) -> Workload:
    """The cost of the overlaps of all pairs of items, and of the strongest neighbours that each item keeps."""
    kept = sizes.items * min(neighbours, sizes.items)
    return Workload(
        kept,
        sizes.co_pairs * SPARSE_SPARSE + 12.0 * sizes.items**2 * PASS,
        20.0 * min(COSINES_AT_ONCE, sizes.items**2) + 12.0 * kept + 24.0 * sizes.history_events,
        scoring_seconds=sizes.history_length * min(neighbours, sizes.items) * LOOKUP + sizes.items * PASS,
    )
