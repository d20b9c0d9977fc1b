"""The bilinear content model: predicts the content that users choose from the content of their histories."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from training.data.dataset import Dataset
from training.models.coconsumption import prior_scores, training_matrix, unit_rows
from training.models.content_based.encoder import ContentEncoder
from training.models.content_based.map import ContentMoments, MapSettings
from training.models.content_based.model import ContentBased
from training.models.content_based.selection import MapChoice, choose_map
from training.models.contract import FloatMatrix, Positions, RuntimeOptions
from training.models.held_out import CHOICE_FILE
from training.models.kernels import Factors
from training.models.linear import Term

MAP_FILE = "mixing.npz"


class BilinearContent(ContentBased):
    """K = F M F' with content features F, the unit content vector and a constant.

    `training.models.content_based.map` learns M in closed form. The constant lets it learn which content is popular in
    general. With `held_out_users` its ridges, the half-life and the weight of plain similarity are those that rank
    held-out events best.
    """

    map: FloatMatrix  # M, [d + 1, d + 1]
    choice: MapChoice | None = None
    """The settings that ranked held-out events best; None where the configuration's are used."""

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        matrix = training_matrix(dataset)
        self.encoder = ContentEncoder(self.config.encoder).fit(dataset.items.metadata, options.seed)
        features = self._features(dataset.items.metadata)
        if self.choice is None and self.config.held_out_users:
            self.choice = choose_map(dataset, features, self.config, options.seed)
        self.map = ContentMoments.of(matrix, features).map(self._settings)
        self.base = prior_scores(dataset, self.config.prior)
        self._set_kernel(features @ self.map, features)
        return self

    def refit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        """A fit with what this model has chosen, so that the figures of one model speak for the next."""
        model = type(self)(self.config)
        model.choice = self.choice
        return model.fit(dataset, options)

    def record(self) -> dict[str, Any]:
        return {} if self.choice is None else self.choice.notes()

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
        if self.choice is not None:
            (path / CHOICE_FILE).write_text(self.choice.model_dump_json())

    def _load_state(self, path: Path) -> None:
        with np.load(path / MAP_FILE, allow_pickle=False) as arrays:
            self.map = arrays["mixing"]
        if (path / CHOICE_FILE).exists():
            self.choice = MapChoice.model_validate_json((path / CHOICE_FILE).read_text())
        kernel = cast(Factors, self.kernel)
        self._set_kernel(kernel.left, kernel.right)

    def _features(self, metadata: Sequence[dict[str, Any]]) -> FloatMatrix:
        """F, float32 [n, d + 1]: the unit content vector, then 1."""
        content = unit_rows(self.encoder.transform(metadata))
        return np.hstack([content, np.ones((len(content), 1), np.float32)])

    def _set_kernel(self, left: FloatMatrix, right: FloatMatrix) -> None:
        """Set the kernel, and the vectors as a view of it. left: FM, float32 [n, d + 1]; right: F."""
        self.terms = (Term(Factors(left, right), self._settings.half_life),)
        self.vectors = right[:, :-1]

    @property
    def _settings(self) -> MapSettings:
        """What the map was learned with: what was chosen, else the configuration's."""
        return MapSettings.of(self.config) if self.choice is None else self.choice.settings
