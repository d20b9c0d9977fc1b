"""The content-based family: what items are, and which kinds of items are chosen by the same users."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import Field

from training.data.dataset import Dataset
from training.models.coconsumption import prior_scores, training_matrix, unit_rows
from training.models.cold_start.label_model import LabelMixture, MixtureConfig
from training.models.content_based.encoder import ContentEncoder, EncoderConfig
from training.models.content_based.workload import content_based_workload
from training.models.contract import FloatMatrix, Positions, RuntimeOptions
from training.models.kernels import Factors
from training.models.linear import LinearConfig, LinearRecommender
from training.models.workload import DataSizes, Workload

MIXING_FILE = "mixing.npz"
Doubles = npt.NDArray[np.floating[Any]]


class ContentBasedConfig(LinearConfig):
    encoder: EncoderConfig = EncoderConfig()
    user_regularisation: float = Field(default=1_000.0, gt=0, description="ridge on the profiles' side of the map")
    item_regularisation: float = Field(default=1.0, gt=0, description="ridge on the items' side of the map")
    likeness: float = Field(
        default=0.5, ge=0, description="weight of plain likeness of content beside the learned map, both of unit spread"
    )
    mixture: MixtureConfig | None = Field(
        default=None, description="null: the map; else a mixture over labels, in which what is chosen lately counts"
    )


class ContentBased(LinearRecommender):
    """K = F M F' over content features F, so that an item without a single event is scored like any other.

    F is the unit content vector and a constant. M is the sum of the plain likeness of content and of the map that best
    predicts users' items from their profiles of content, a ridge on both sides:
    (P'P + a)^-1 P'X F (F'F + b)^-1 with profiles P = X F (a bilinear model as in Chu and Park, 2009, in closed form).
    The constant lets the map learn which content is chosen often, and by how much in general.

    Where it is configured, a mixture over labels (`LabelMixture`) takes the place of M: it knows what is chosen lately,
    and what to expect of newcomers, which get a share of the lists.
    """

    family = "content-based"
    Config = ContentBasedConfig
    config: ContentBasedConfig
    encoder: ContentEncoder
    mixing: FloatMatrix  # M, [d + 1, d + 1]; of the map alone
    mixture: LabelMixture | None = None

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        matrix = training_matrix(dataset)
        self.encoder = ContentEncoder(self.config.encoder).fit(dataset.items.metadata, options.seed)
        if self.config.mixture is not None:
            self.vectors = unit_rows(self.encoder.transform(dataset.items.metadata))
            mixture = LabelMixture(self.config.mixture, self.config.half_life)
            self._mixed(mixture.fit(dataset, self.encoder, options.seed))
            return self
        features = self._features(dataset.items.metadata)
        self.mixing = self._mix(matrix, features)
        self.base = prior_scores(dataset, self.config.prior)
        self._lay(features @ self.mixing, features)
        return self

    @classmethod
    def workload(
        cls,
        sizes: DataSizes,
        config: ContentBasedConfig,
        refit: bool = False,
        base_models: Mapping[str, Workload] | None = None,
    ) -> Workload:
        return content_based_workload(sizes, config)

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        if not len(positions):
            return self
        model = self._copy()
        added = int((positions >= self.n_items).sum())
        if self.mixture is not None:
            room = np.zeros((added, self.vectors.shape[1]), np.float32)
            model.vectors = np.vstack([self.vectors, room])
            model.vectors[positions] = unit_rows(self.encoder.transform(metadata))
            model._mixed(self.mixture.with_items(positions, metadata, self.encoder))
            return model
        model.base = np.concatenate([self.base, np.full(added, self.base.min(), np.float32)])
        room = np.zeros((added, self.mixing.shape[1]), np.float32)
        kernel = cast(Factors, self.kernel)
        left, right = np.vstack([kernel.left, room]), np.vstack([kernel.right, room])
        right[positions] = self._features(metadata)
        left[positions] = right[positions] @ self.mixing
        model._lay(left, right)
        return model

    def as_base_model(self) -> Self:
        if self.mixture is None or self.mixture.lift == 1:
            return self
        model = self._copy()
        model._mixed(self.mixture.unlifted())
        return model

    def save(self, path: Path) -> None:
        super().save(path)
        self.encoder.save(path)
        if self.mixture is not None:
            self.mixture.save(path)
        else:
            np.savez(path / MIXING_FILE, mixing=self.mixing)

    @classmethod
    def load(cls, path: Path) -> Self:
        model = super().load(path)
        model.encoder = ContentEncoder.load(path)
        if model.config.mixture is not None:
            model.mixture = LabelMixture.load(path, model.config.mixture, model.config.half_life, model.kernel)
            return model
        with np.load(path / MIXING_FILE, allow_pickle=False) as arrays:
            model.mixing = arrays["mixing"]
        kernel = cast(Factors, model.kernel)
        model._lay(kernel.left, kernel.right)
        return model

    def record(self) -> dict[str, Any]:
        return {} if self.mixture is None else self.mixture.record()

    def _mixed(self, mixture: LabelMixture) -> None:
        self.mixture, self.kernel, self.base = mixture, mixture.kernel, mixture.base

    def _features(self, metadata: Sequence[dict[str, Any]]) -> FloatMatrix:
        """float32 [n, d + 1]: the unit content vector, then 1."""
        content = unit_rows(self.encoder.transform(metadata))
        return np.hstack([content, np.ones((len(content), 1), np.float32)])

    def _lay(self, left: FloatMatrix, right: FloatMatrix) -> None:
        """Set the kernel, and the vectors as a view of it. left: float32 [n, d + 1], FM; right: F."""
        self.kernel = Factors(left, right)
        self.vectors = right[:, :-1]

    def _mix(self, matrix: sp.csr_array, features: FloatMatrix) -> FloatMatrix:
        width = features.shape[1]
        exact = features.astype(np.float64)
        profiles = matrix @ exact  # [n_users, d + 1]
        gram = exact.T @ exact
        targets = profiles.T @ (matrix @ exact)
        mapped = np.linalg.solve(profiles.T @ profiles + self.config.user_regularisation * np.eye(width), targets)
        learned = np.linalg.solve(gram + self.config.item_regularisation * np.eye(width), mapped.T).T
        plain = np.eye(width)
        plain[-1, -1] = 0
        mean = exact.mean(axis=0)
        mixed = _unit_spread(learned, gram, mean, len(exact))
        return (mixed + self.config.likeness * _unit_spread(plain, gram, mean, len(exact))).astype(np.float32)


def _unit_spread(mixing: Doubles, gram: Doubles, mean: Doubles, n: int) -> Doubles:
    """M scaled so that the entries of F M F' have unit variance, without computing them.

    gram: F'F. mean: of the rows of F. n: number of rows. Where all entries are equal M comes back as it is.
    """
    variance = float(np.sum((mixing @ gram @ mixing.T) * gram)) / n**2 - float(mean @ mixing @ mean) ** 2
    return mixing / np.sqrt(variance) if variance > 1e-12 else mixing
