"""The bilinear content model: predicts the content that users choose from the content of their histories."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.data.dataset import Dataset
from training.models.coconsumption import prior_scores, training_matrix, unit_rows
from training.models.content_based.encoder import ContentEncoder
from training.models.content_based.model import ContentBased
from training.models.contract import FloatMatrix, Positions, RuntimeOptions
from training.models.kernels import Factors

MAP_FILE = "mixing.npz"
Doubles = npt.NDArray[np.floating[Any]]


class BilinearContent(ContentBased):
    """K = F M F' with content features F, the unit content vector and a constant.

    M is the sum of the plain similarity of content and of the map that best predicts users' items from their content
    profiles P = X F, with a ridge on both sides: (P'P + a)^-1 P'X F (F'F + b)^-1 (a bilinear model as in Chu and Park,
    2009, in closed form). The constant lets the map learn which content is popular in general.
    """

    map: FloatMatrix  # M, [d + 1, d + 1]

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        matrix = training_matrix(dataset)
        self.encoder = ContentEncoder(self.config.encoder).fit(dataset.items.metadata, options.seed)
        features = self._features(dataset.items.metadata)
        self.map = self._fit_map(matrix, features)
        self.base = prior_scores(dataset, self.config.prior)
        self._set_kernel(features @ self.map, features)
        return self

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        if not len(positions):
            return self
        model = self._copy()
        added = int((positions >= self.n_items).sum())
        model.base = np.concatenate([self.base, np.full(added, self.base.min(), np.float32)])
        new_rows = np.zeros((added, self.map.shape[1]), np.float32)
        kernel = cast(Factors, self.kernel)
        left, right = np.vstack([kernel.left, new_rows]), np.vstack([kernel.right, new_rows])
        right[positions] = self._features(metadata)
        left[positions] = right[positions] @ self.map
        model._set_kernel(left, right)
        return model

    def _save_state(self, path: Path) -> None:
        np.savez(path / MAP_FILE, mixing=self.map)

    def _load_state(self, path: Path) -> None:
        with np.load(path / MAP_FILE, allow_pickle=False) as arrays:
            self.map = arrays["mixing"]
        kernel = cast(Factors, self.kernel)
        self._set_kernel(kernel.left, kernel.right)

    def _features(self, metadata: Sequence[dict[str, Any]]) -> FloatMatrix:
        """F, float32 [n, d + 1]: the unit content vector, then 1."""
        content = unit_rows(self.encoder.transform(metadata))
        return np.hstack([content, np.ones((len(content), 1), np.float32)])

    def _set_kernel(self, left: FloatMatrix, right: FloatMatrix) -> None:
        """Set the kernel, and the vectors as a view of it. left: FM, float32 [n, d + 1]; right: F."""
        self.kernel = Factors(left, right)
        self.vectors = right[:, :-1]

    def _fit_map(self, matrix: sp.csr_array, features: FloatMatrix) -> FloatMatrix:
        width = features.shape[1]
        exact = features.astype(np.float64)
        profiles = matrix @ exact  # [n_users, d + 1]
        gram = exact.T @ exact
        targets = profiles.T @ (matrix @ exact)
        mapped = np.linalg.solve(profiles.T @ profiles + self.config.user_regularisation * np.eye(width), targets)
        learned = np.linalg.solve(gram + self.config.item_regularisation * np.eye(width), mapped.T).T
        similarity = np.eye(width)
        similarity[-1, -1] = 0
        mean = exact.mean(axis=0)
        scaled = _unit_spread(learned, gram, mean, len(exact))
        beside = self.config.similarity_weight * _unit_spread(similarity, gram, mean, len(exact))
        return (scaled + beside).astype(np.float32)


def _unit_spread(mapping: Doubles, gram: Doubles, mean: Doubles, n: int) -> Doubles:
    """M scaled so that the entries of F M F' have unit variance, without computing them; unchanged if all are equal.

    gram: F'F. mean: of the rows of F. n: number of rows.
    """
    variance = float(np.sum((mapping @ gram @ mapping.T) * gram)) / n**2 - float(mean @ mapping @ mean) ** 2
    return mapping / np.sqrt(variance) if variance > 1e-12 else mapping
