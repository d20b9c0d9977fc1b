"""EASE: the item-item regression with zero diagonal, in closed form (Steck, 2019)."""

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from training.models.contract import FloatMatrix

DOUBLE_UP_TO = 4_000
"""Items up to which the inverse is taken in double precision; past it, single halves the time and the memory."""


def ease_weights(matrix: sp.csr_array, regularisation: float) -> FloatMatrix:
    """B minimising |X - XB|^2 + regularisation |B|^2 with a zero diagonal, float32 [n_items, n_items].

    matrix: float32 X [n_users, n_items]. B[j, i] is what one unit of item j says for item i.
    """
    n_items = matrix.shape[1]
    gram = (matrix.T @ matrix).toarray().astype(np.float64 if n_items <= DOUBLE_UP_TO else np.float32)
    gram[np.diag_indices(n_items)] += regularisation
    factor, lower = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    (invert,) = scipy.linalg.get_lapack_funcs(("potri",), (factor,))
    inverse, info = invert(factor, lower=lower, overwrite_c=True)
    if info != 0:
        raise ArithmeticError(f"the regularised Gram matrix has no inverse (potri: {info}); raise the regularisation")
    lower_half = np.tril(inverse, -1)
    weights = lower_half + lower_half.T
    weights /= -np.diag(inverse)
    return weights.astype(np.float32)
