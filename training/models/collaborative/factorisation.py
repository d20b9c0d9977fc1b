"""Implicit-feedback matrix factorisation with a linear fold-in, for catalogues too large for a closed form."""

import numpy as np
import scipy.sparse as sp

from training.models.contract import FloatMatrix, RuntimeOptions
from training.models.kernels import Factors


def factorise(
    matrix: sp.csr_array,
    dimensions: int,
    regularisation: float,
    confidence: float,
    iterations: int,
    options: RuntimeOptions,
) -> Factors:
    """Item factors Y by alternating least squares (Hu, Koren and Volinsky, 2008), as an item-to-item kernel.

    A history h is folded in by the ridge solution u = h Y (Y'Y + regularisation)^-1, with the same system for all
    users, so that its scores u Y' are linear in h: K = Y (Y'Y + regularisation)^-1 Y'. On MovieLens this ranks as well
    as solving a system per user does, and the contribution of each history item stays exact.

    Args:
        matrix: float32 [n_users, n_items].
        dimensions: number of factors; fewer where the matrix is smaller.
        regularisation: ridge of both factors and of the fold-in.
        confidence: weight of an observed pair over an unobserved one.
        iterations: alternations of the least squares.
        options: threads and seed.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    width = min(dimensions, *matrix.shape)
    solver = AlternatingLeastSquares(
        factors=width,
        regularization=regularisation,
        alpha=confidence,
        iterations=iterations,
        num_threads=options.threads,
        random_state=options.seed,
    )
    with threadpool_limits(1, user_api="blas"):  # implicit runs its own threads
        solver.fit(sp.csr_matrix(matrix), show_progress=False)
    items: FloatMatrix = np.asarray(solver.item_factors, dtype=np.float32)
    system = items.T.astype(np.float64) @ items + regularisation * np.eye(width)
    return Factors(items, np.linalg.solve(system, items.T.astype(np.float64)).T.astype(np.float32))
