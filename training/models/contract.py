"""The contract that every model family implements; the contract tests check each family against it.

A model is inductive: it scores *histories*, never stored users. It knows items by their position in the item table that
it was trained on, and `with_items` extends it to a newer catalogue while it serves.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.profile import DataProfile
from training.data.splits import Holdout
from training.models.default_values import family_values
from training.models.lists import (
    NO_ITEM,
    Contributions,
    ListContributions,
    Ranking,
    gather_contributions,
    strongest_sources,
    top_k,
)
from training.models.scoring import PlainScoring, Scoring
from training.models.workload import DataSizes, Workload

FloatMatrix = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class ModelConfig(BaseModel):
    """Hyper-parameters of a family: what changes the model that comes out. Read from `configs/models/<family>.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


GroupFunction = Callable[[Path], float]


@dataclass(frozen=True)
class ProcessGroup:
    """Several processes for one fit, of a family that can divide it; other families fit in the process that asks."""

    train: Callable[[GroupFunction, int, Path], float]
    """Calls a function with an argument in so many new processes, and returns the result of the first. Where one dies,
    all of them start again, a bounded number of times (`Compute.train` of the pipeline)."""
    processes: int
    folder: Path  # that all of them reach; what they exchange lies there as long as the fit


@dataclass(frozen=True)
class RuntimeOptions:
    """How a fit runs, apart from what it computes."""

    device: str = "cpu"
    seed: int = 0
    threads: int = 2
    max_seconds: float = 600.0  # a fit stops after this long and keeps its best state
    max_memory_mb: float | None = None  # a training that is expected to take more is refused; None: what there is
    workdir: Path | None = None  # checkpoints of a long fit; None: none are written
    progress: Callable[[int, int, float | None], None] | None = None
    """Called after each step of a long fit, such as an epoch, with its number, the number of steps, and the held-out
    figure where there is one. An exception that it raises ends the fit."""
    group: ProcessGroup | None = None  # None: the fit runs in this process


class Recommender(ABC):
    """A trained model of one family. Raw scores are float32, finite, comparable within one model only."""

    family: ClassVar[str]
    Config: ClassVar[type[ModelConfig]]
    imports: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Libraries that the first fit of a process loads, with the processor seconds and the MB that this takes."""
    memory_advice: ClassVar[str] = ""
    """What makes a fit take less memory, in words, where its configuration can."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        self.config = config or self.Config()

    @classmethod
    def default_config(cls, profile: DataProfile) -> ModelConfig:
        """The hyper-parameters for data of this profile, where nobody has chosen any.

        By default those of `configs/models/<family>.yaml`, and of the class for what the file leaves out. A family
        overrides it where good values depend on the data. Values that it computes are rounded
        (`training.data.profile.preferred_number`), so that the same tenant has the same configuration tomorrow.
        """
        return cls.Config.model_validate(family_values(cls.family))

    @abstractmethod
    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        """Learn from the data set and return self. Raises ValueError where the data are not enough for this family."""

    def refit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        """A new model with the same configuration, for a data set that adds later events to those of this model.

        By default a new fit. A family whose fits are long may continue from what it has learned.
        """
        return type(self)(self.config).fit(dataset, options)

    @classmethod
    def workload(
        cls, sizes: DataSizes, config: Any, refit: bool = False, base_models: Mapping[str, Workload] | None = None
    ) -> Workload | None:
        """What a fit of this family costs, counted before it starts; None where the family declares no formula.

        Args:
            sizes: of the data set to fit on.
            config: hyper-parameters of this family.
            refit: the cost of `refit` instead of `fit`.
            base_models: of an ensemble, what the fits of its base models cost.
        """
        return None

    def record(self) -> dict[str, Any]:
        """Facts about the fit for the tracking run: numbers, text, and lists of floats as curves."""
        return {}

    @property
    @abstractmethod
    def n_items(self) -> int:
        """Number of items the model can score, including those added by `with_items`."""

    @abstractmethod
    def score(self, histories: Histories, candidates: Positions | None = None) -> FloatMatrix:
        """Raw scores, float32 [batch, n_items], or [batch, n_candidates] for int32 [n_candidates] positions.

        An empty history gets the scores of a new user. Positions in a history at or past `n_items` raise IndexError.
        """

    @abstractmethod
    def item_vectors(self) -> FloatMatrix:
        """Unit vectors whose dot products are the similarity of two items to this family, float32 [n_items, d].

        Used by `similar` and for the diversity of lists. An item the family knows nothing about has a zero vector.
        """

    def vector_norms(self) -> FloatMatrix | None:
        """The lengths that the item vectors of the dot product have, float32 [n_items]; `item_vectors` are scaled to 1.

        None, the default, for a family whose scores are no dot products. The pipeline watches which lengths are asked.
        """
        return None

    @abstractmethod
    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        """Contributions of row b's history to the raw score of items[b], one per row. items: int32 [batch]."""

    @abstractmethod
    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        """A copy with new or edited items; it shares memory with this model, which does not change.

        A family that reads metadata scores new items by it; any other gives them the lowest score of an empty history.

        positions: int32 [m] ascending. Those below `n_items` are edits; the others must follow it without a gap.
        """

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write config and arrays into the folder `path` as JSON, .npz, safetensors or Arrow; never pickle."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Self:
        """The model that `save` wrote; scores are equal to the saved one's."""

    def component_scores(self, histories: Histories) -> dict[str, FloatMatrix]:
        """Raw scores split by the family that contributes them, each float32 [batch, n_items]; they add up to `score`.

        An ensemble overrides it, so that one pass gives the scores and the base model of each part. A part that belongs
        to no base model has the ensemble's own name as its key. The model server scores through this method.
        """
        return {self.family: self.score(histories)}

    def explain_lists(self, histories: Histories, items: Positions) -> list[ListContributions]:
        """`explain` for every item of each row's list, one result per row. items: int32 [batch, k], NO_ITEM allowed.

        A family overrides it where a whole list is cheaper than its items one by one.
        """
        rows, columns = np.nonzero(items != NO_ITEM)
        explained = self.explain(histories.take(rows), items[rows, columns]) if len(rows) else []
        return [
            gather_contributions(explained[start:end], columns[start:end], items.shape[1])
            for start, end in pairwise(np.searchsorted(rows, np.arange(len(items) + 1)))
        ]

    def evidence(self, histories: Histories, items: Positions, top: int = 3) -> Positions:
        """The history items that weigh most in each item of each row's list, int32 [batch, k, top].

        Largest first, positive contributions only, padded with NO_ITEM. items: int32 [batch, k], NO_ITEM allowed.
        """
        return strongest_sources(self.explain_lists(histories, items), items.shape, top)

    def scoring(self, histories: Histories) -> Scoring:
        """The scores of these histories, and what the model server asks about their ranked lists.

        By default from `component_scores` and `evidence`. A family overrides it where one pass is cheaper; its answers
        are the same up to the rounding of float32.
        """
        return PlainScoring(self, histories)

    def as_base_model(self) -> Self:
        """This model as an ensemble uses it: without adjustments that are meant for its own ranked lists alone.

        By default the model itself. A family that boosts cold items returns a model without that boost.
        """
        return self

    def recommend(
        self, histories: Histories, k: int, exclude: Mask | None = None, allowed: Mask | None = None
    ) -> Ranking:
        """The top k by (score descending, position ascending).

        Args:
            k: length of the lists; shorter ones are padded with NO_ITEM.
            exclude: bool [batch, n_items], True where an item must not appear in that row.
            allowed: bool [n_items], False where an item must not appear in any row.
        """
        scores = self.score(histories)
        if exclude is not None:
            scores = np.where(exclude, -np.inf, scores)
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        return top_k(scores, k)

    def similar(self, items: Positions, k: int, allowed: Mask | None = None) -> Ranking:
        """The k items most similar to each of `items`, int32 [batch], without the item itself. Scores are cosines."""
        vectors = self.item_vectors()
        scores = vectors[items] @ vectors.T
        scores[np.arange(len(items)), items] = -np.inf
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        return top_k(scores, k)


class Ensemble(Recommender):
    """A family that learns how to weigh fitted models of other families, its base models, and holds them to serve.

    It must learn its weights from events that the base models given to `fit` have not seen. There are two ways:

    - A time separates them (`known_until`): the base models know the events before it, and `fit` gets a data set with
      later events too, from which it makes its queries.
    - Each user's last events are held out (`queries`): the queries come with their targets, and `fit` gets the data
      set that the base models know.

    Afterwards it serves with base models that were fitted again on everything (`with_refitted`).
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        base_models: Mapping[str, Recommender] | None = None,
        known_until: int | None = None,
        queries: Holdout | None = None,
    ) -> None:
        """An ensemble to be fitted.

        Args:
            config: hyper-parameters.
            base_models: fitted models by family.
            known_until: microseconds; None, without queries: `config` says how to choose it.
            queries: what to learn from where no time separates the events; `fit` drops them after use.
        """
        super().__init__(config)
        self.base_models = {family: model.as_base_model() for family, model in (base_models or {}).items()}
        self.known_until = known_until
        self.queries = queries

    @property
    @abstractmethod
    def kept_base_model(self) -> str | None:
        """The only base model in use, where no weighted sum beat it on the held-out queries; else None."""

    @abstractmethod
    def with_refitted(self, base_models: Mapping[str, Recommender], dataset: Dataset) -> Self:
        """The same learned weights over other fitted models of the same families.

        dataset: what those were fitted on. Constants that depend on a base model's scores, such as their scale, are
        measured on it again.
        """

    @abstractmethod
    def with_base_models(self, base_models: Mapping[str, Recommender]) -> Self:
        """This ensemble over the same base models after their `with_items`; nothing is measured again.

        `with_items` of an ensemble calls it with each base model's `with_items`. The model server, which has extended
        the base models for their own answers already, calls it directly.
        """

    @classmethod
    @abstractmethod
    def load(cls, path: Path, base_models: Mapping[str, Recommender] | None = None) -> Self:
        """The ensemble that `save` wrote, over `base_models`. Raises ValueError where one of them is missing."""
