"""The map of the bilinear content model, in closed form."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict

from training.models.content_based.config import ContentBasedConfig
from training.models.contract import FloatMatrix

Doubles = npt.NDArray[np.floating[Any]]


class MapSettings(BaseModel):
    """The hyper-parameters of a map and of the histories that it reads, as `ContentBasedConfig` describes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_regularisation: float
    item_regularisation: float
    similarity_weight: float
    own_weight: float
    half_life: float | None

    @classmethod
    def of(cls, config: ContentBasedConfig) -> Self:
        """Those of a configuration."""
        return cls(**{name: getattr(config, name) for name in cls.model_fields})


@dataclass(frozen=True)
class ContentMoments:
    """What the map is computed from: all that it needs of users and items, whatever its settings.

    With content features F and content profiles P = X F of users, all float64 [d, d].
    """

    items: Doubles  # F'F
    users: Doubles  # P'P
    own: Doubles  # the part of P'P that comes from pairs of an item with itself
    mean: Doubles  # of the rows of F, [d]
    n_items: int

    @classmethod
    def of(cls, matrix: sp.csr_array, features: FloatMatrix) -> Self:
        """matrix: X, float32 [n_users, n_items]. features: F, float32 [n_items, d]."""
        exact = features.astype(np.float64)
        profiles, squares = matrix @ exact, np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel()
        own = exact.T @ (squares[:, None] * exact)
        return cls(exact.T @ exact, profiles.T @ profiles, own, exact.mean(axis=0), len(exact))

    def map(self, settings: MapSettings) -> FloatMatrix:
        """M, float32 [d, d], for scores X F M F'.

        It is the sum of the plain similarity of content and of the map that best predicts users' items from their
        profiles, with a ridge on both sides: (P'P + a)^-1 P'X F (F'F + b)^-1 (a bilinear model as in Chu and Park,
        2009, in closed form). P'X F is P'P; without the pairs of an item with itself, content is predicted from the
        user's other items, as EASE's zero diagonal has it. Both are scaled to the same spread of F M F' first.
        """
        width = len(self.mean)
        target = self.users - (1 - settings.own_weight) * self.own
        mapped = np.linalg.solve(self.users + settings.user_regularisation * np.eye(width), target)
        learned = np.linalg.solve(self.items + settings.item_regularisation * np.eye(width), mapped.T).T
        similarity = np.eye(width)
        similarity[-1, -1] = 0
        beside = settings.similarity_weight * self._unit_spread(similarity)
        return (self._unit_spread(learned) + beside).astype(np.float32)

    def _unit_spread(self, mapping: Doubles) -> Doubles:
        """M scaled so that the entries of F M F' have unit variance, without computing them; unchanged if all equal."""
        mean_square = float(np.sum((mapping @ self.items @ mapping.T) * self.items)) / self.n_items**2
        variance = mean_square - float(self.mean @ mapping @ self.mean) ** 2
        return mapping / np.sqrt(variance) if variance > 1e-12 else mapping
