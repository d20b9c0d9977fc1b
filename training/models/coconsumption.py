"""Co-consumption: the users-by-items training matrix of linear families, and item vectors from it."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.data.dataset import Dataset
from training.models.contract import FloatMatrix
from training.models.popularity import decayed_popularity
from training.models.profiles import build_profiles

PRIOR_HALF_LIFE_DAYS = 14.0


def training_matrix(dataset: Dataset, whole: bool = False) -> sp.csr_array:
    """Profiles of all users without decay, float32 [n_users, n_items].

    Args:
        dataset: events.
        whole: use all events of a user, not only the newest ones that a history holds.

    Raises:
        ValueError: there are no interactions.
    """
    if not len(dataset.interactions):
        raise ValueError("there are no interactions to learn from: record some first")
    read = replace(dataset, max_events=len(dataset.interactions)) if whole else dataset
    weights = np.empty(len(dataset.interactions), np.float32)  # a bound: pages that stay unwritten take no memory
    items = np.empty(len(dataset.interactions), np.int32)
    lengths = np.zeros(dataset.n_users + 1, np.int64)
    end = 0
    for first, histories in read.histories_in_parts():
        found = build_profiles(histories, dataset.n_items)
        lengths[first + 1 : first + 1 + len(found)] = np.diff(found.offsets)
        weights[end : end + len(found.items)] = found.weights
        items[end : end + len(found.items)] = found.items
        end += len(found.items)
    return sp.csr_array((weights[:end], items[:end], np.cumsum(lengths)), shape=(dataset.n_users, dataset.n_items))


def prior_scores(dataset: Dataset, weight: float) -> npt.NDArray[np.float32]:
    """Time-decayed popularity scaled to [0, weight], float32 [n_items]; zero where no event has any weight."""
    popularity = decayed_popularity(dataset, PRIOR_HALF_LIFE_DAYS)
    return (weight * popularity / (popularity.max() or 1)).astype(np.float32)


def item_vectors(matrix: sp.csr_array, dimensions: int, seed: int) -> FloatMatrix:
    """Unit vectors whose dot products approximate the cosine of two items' users, float32 [n_items, <= dimensions].

    Left singular vectors of the users-by-items matrix with columns of unit length, scaled by the singular values
    (PureSVD: Cremonesi, Koren and Turrin, 2010). An item without users has a zero vector.
    """
    from sklearn.utils.extmath import randomized_svd  # a second to import, and serving never fits

    norms = column_norms(matrix)
    scaled = sp.csr_matrix(matrix @ sp.diags_array(1 / np.where(norms > 0, norms, 1)))
    width = min(dimensions, *scaled.shape)
    _, values, rows = randomized_svd(scaled, n_components=width, random_state=seed)
    return unit_rows(np.where(norms[:, None] > 0, rows.T * values, 0))


def column_norms(matrix: sp.csr_array) -> npt.NDArray[np.float32]:
    """Euclidean lengths of the columns, float32 [n_columns]."""
    return np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel()).astype(np.float32)


def unit_rows(vectors: npt.NDArray[np.floating]) -> FloatMatrix:
    """The rows scaled to unit length, float32; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0).astype(np.float32)
