"""EASE: the item-item regression with zero diagonal, in closed form (Steck, 2019)."""

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from training.models.contract import FloatMatrix

DOUBLE_UP_TO = 4_000
"""Up to this many items the inverse is computed in float64; above, float32 halves time and memory."""
_COLUMNS_AT_ONCE = 1_000
ENTRIES_AT_ONCE = 25_000_000
"""Entries of the users-by-items matrix that are multiplied at a time. Their copies take 16 bytes an entry."""


def ease_weights(matrix: sp.csr_array, regularisation: float) -> FloatMatrix:
    """B minimising |X - XB|^2 + regularisation |B|^2 with a zero diagonal, float32 [n_items, n_items].

    Memory is bounded by one array of n_items^2 numbers and copies of ENTRIES_AT_ONCE entries of the matrix.

    Args:
        matrix: float32 X [n_users, n_items]. B[j, i] is the weight of history item j for scored item i.
        regularisation: positive.

    Raises:
        numpy.linalg.LinAlgError, ArithmeticError: the regularised Gram matrix has no inverse.
    """
    n_items = matrix.shape[1]
    blocks = [slice(start, start + _COLUMNS_AT_ONCE) for start in range(0, n_items, _COLUMNS_AT_ONCE)]
    gram = np.zeros((n_items, n_items), np.float64 if n_items <= DOUBLE_UP_TO else np.float32, order="F")
    for part in row_blocks(matrix):
        columns, by_item = sp.csc_array(part), sp.csr_array(part.T)
        for block in blocks:
            gram[:, block] += (by_item @ sp.csr_array(columns[:, block])).toarray()
    gram[np.diag_indices(n_items)] += regularisation
    factor, lower = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    (invert,) = scipy.linalg.get_lapack_funcs(("potri",), (factor,))
    inverse, info = invert(factor, lower=lower, overwrite_c=True)
    if info != 0:
        raise ArithmeticError(f"the regularised Gram matrix has no inverse (potri: {info}); raise the regularisation")
    for block in blocks:  # only the lower half is computed
        inverse[block, block.stop :] = inverse[block.stop :, block].T
        corner = np.tril(inverse[block, block], -1)
        inverse[block, block] = corner + corner.T + np.diag(np.diag(inverse[block, block]))
    inverse /= -np.diag(inverse).copy()
    inverse[np.diag_indices(n_items)] = 0
    return inverse.astype(np.float32, copy=False)


def row_blocks(matrix: sp.csr_array) -> Iterator[sp.csr_array]:
    """The matrix in blocks of whole rows, of about ENTRIES_AT_ONCE entries each."""
    start, n_rows = 0, matrix.shape[0]
    while start < n_rows:
        end = int(np.searchsorted(matrix.indptr, matrix.indptr[start] + ENTRIES_AT_ONCE, side="right")) - 1
        end = min(max(end, start + 1), n_rows)
        yield matrix if end - start == n_rows else sp.csr_array(matrix[start:end])
        start = end
