"""The ways to learn item-to-item weights, each with its settings."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from training.data.dataset import Dataset
from training.models.coconsumption import training_matrix
from training.models.collaborative.ease import ease_weights
from training.models.collaborative.factorisation import factorise
from training.models.collaborative.transitions import transition_weights
from training.models.contract import RuntimeOptions
from training.models.kernels import Dense, Factors, Kernel, Sparse, strongest
from training.models.linear import Term
from training.models.neighbours import shrunk_cosines

if TYPE_CHECKING:
    from training.models.collaborative.model import CollaborativeConfig


class Method(BaseModel):
    """One way to learn weights. A model is the sum of one or two, each multiplied by its factor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["transitions", "ease", "neighbours"]
    regularisation: float | None = None  # ridge of the two regressions
    half_life: float | None = None
    """As `LinearConfig.half_life`. Transitions that have one learn from it alone, in place of `decay_half_lives`."""
    repeat_weight: float = 0.0  # gain of an item per recent event of the user with it
    factor: float = Field(default=1.0, gt=0)

    @property
    def learned(self) -> "Method":
        """What its kernels depend on: methods that are equal in it share them."""
        kept = {"name", "regularisation", *(["half_life"] if self.name == "transitions" else [])}
        return Method(**self.model_dump(include=kept))

    @property
    def label(self) -> str:
        """Name and settings in a word."""
        settings = {"ridge": self.regularisation, "half-life": self.half_life, "repeats": self.repeat_weight or None}
        return " ".join([self.name, *(f"{name} {value:g}" for name, value in settings.items() if value is not None)])


@dataclass(frozen=True)
class Learner:
    """Learns the kernels of methods from one data set."""

    dataset: Dataset
    config: "CollaborativeConfig"
    options: RuntimeOptions

    def terms(self, method: Method) -> tuple[Term, ...]:
        """What the method adds to the scores of a model, its factor included."""
        return self.weighed(method, self.kernels(method))

    def kernels(self, method: Method) -> list[Kernel]:
        """The kernels of a method, before its factor."""
        config = self.config
        if method.name == "neighbours":
            return [Sparse(shrunk_cosines(self.matrix, config.neighbours, config.shrinkage))]
        if method.name == "ease":
            return self._ease(config.regularisation if method.regularisation is None else method.regularisation)
        ridge = config.transition_regularisation if method.regularisation is None else method.regularisation
        weights = transition_weights(self.dataset, self._half_lives(method), ridge, self.options.seed)
        if method.half_life is not None and self.dataset.n_items > config.dense_items:
            return [Sparse(strongest(one, config.kept_weights)) for one in weights]
        return [Dense(one) for one in weights]

    def weighed(self, method: Method, kernels: list[Kernel]) -> tuple[Term, ...]:
        """The terms of a method whose kernels are learned."""
        own = method.name == "transitions"
        half_lives = self._half_lives(method) if own else (method.half_life,) * len(kernels)
        scaled = kernels if method.factor == 1 else [kernel.scaled(method.factor) for kernel in kernels]
        terms = tuple(Term(kernel, half_life) for kernel, half_life in zip(scaled, half_lives, strict=True))
        return (*terms, self._repeats(method.factor * method.repeat_weight)) if method.repeat_weight else terms

    def _half_lives(self, method: Method) -> tuple[float, ...]:
        return self.config.decay_half_lives if method.half_life is None else (method.half_life,)

    def _repeats(self, weight: float) -> Term:
        """The gain of items that the user has had: the zero diagonal of EASE and of neighbours leaves it out."""
        same = sp.csr_array(weight * sp.eye_array(self.dataset.n_items, dtype=np.float32))
        return Term(Sparse(same), None, int(self.dataset.interactions.timestamps.max()))

    @cached_property
    def matrix(self) -> sp.csr_array:
        """The users-by-items matrix of the histories (`training_matrix`)."""
        return training_matrix(self.dataset)

    @cached_property
    def _whole_matrix(self) -> sp.csr_array:
        """The users-by-items matrix of all events. It is `matrix` where every history holds all events of its user."""
        longest = np.bincount(self.dataset.interactions.users).max(initial=0)
        return self.matrix if longest <= self.dataset.max_events else training_matrix(self.dataset, whole=True)

    @cached_property
    def _folded(self) -> Factors:
        config = self.config
        return factorise(
            self._whole_matrix,
            config.factors,
            config.factor_regularisation,
            config.confidence,
            config.iterations,
            self.options,
        )

    def _ease(self, regularisation: float) -> list[Kernel]:
        """EASE of the whole catalogue, or of its most chosen items, with a factorisation to score the others."""
        config, matrix, n_items = self.config, self._whole_matrix, self.dataset.n_items
        if n_items <= config.dense_items and n_items <= config.closed_form_items:
            return [Dense(ease_weights(matrix, regularisation))]
        if n_items <= config.closed_form_items:
            return [Sparse(strongest(ease_weights(matrix, regularisation), config.kept_weights))]
        if not config.head_items:
            return [self._folded]
        chosen = np.bincount(matrix.indices, minlength=n_items)
        head = np.sort(np.argsort(-chosen, kind="stable")[: config.head_items])
        weights = ease_weights(sp.csr_array(matrix[:, head]), regularisation)
        within = strongest(weights, config.kept_weights).tocoo()
        spread = sp.csr_array((within.data, (head[within.row], head[within.col])), shape=(n_items, n_items))
        for_tail = self._folded.right.copy()
        for_tail[head] = 0
        return [Sparse(spread), Factors(self._folded.left, for_tail)]
