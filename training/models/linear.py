"""Linear families: score(history, i) = base[i] + sum over terms t and history items j of weight_t(j) * K_t[j, i].

They differ in the number of terms and in how each kernel K_t is computed. Since the score is linear in the history, the
contribution of each history item is exact.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from feature_store.online import Histories
from training.models.contract import FloatMatrix, ModelConfig, Positions, Recommender
from training.models.kernels import FORMS, Factors, Kernel
from training.models.lists import Contributions, ListContributions
from training.models.profiles import Profiles, build_profiles
from training.models.scoring import Scoring
from training.models.stored_names import present_names

CONFIG_FILE = "linear.json"
ARRAYS_FILE = "linear.npz"
_EARLIER_NAMES = {"moment": "as_of"}
MIN_CELLS = 4_000_000
"""Entries of a factor matrix above which an ensemble tries to leave its products out (`BaseScoring`)."""


class LinearConfig(ModelConfig):
    """Hyper-parameters that all linear families have."""

    half_life: float | None = Field(
        default=50.0, gt=0, description="distinct later items after which a history item counts half; null: no decay"
    )
    prior: float = Field(
        default=0.01, ge=0, description="weight of the time-decayed popularity that is added to every score"
    )


@dataclass(frozen=True)
class Term:
    """One kernel, and how it weighs the items of a history."""

    kernel: Kernel  # among the items of the training data, or of the catalogue where it comes from content
    half_life: float | None  # distinct later items after which a history item counts half; None: no decay
    as_of: int | None = None
    """Microseconds. Where given, a history item has the weight of the user's recent events with it as of this time."""

    def weigh(self, profiles: Profiles) -> Profiles:
        """The weights that this term multiplies its kernel with. profiles: without decay."""
        return (profiles if self.as_of is None else profiles.recent(self.as_of)).decayed(self.half_life)


class LinearRecommender(Recommender):
    """A recommender over kernels. Subclasses fit `terms` (or `kernel`, where there is one), `base` and `vectors`.

    An ensemble of several such families builds the profiles once, and calls `score_profiles` and
    `leave_one_out_contributions` of each.

    Attributes:
        terms: kernels of one size, each with its decay.
        base: float32 [n_items], the score of an empty history.
        vectors: float32 [n_items, d] unit or zero vectors for `similar`.
    """

    imports: ClassVar[Mapping[str, tuple[float, float]]] = {"sklearn.utils.extmath": (1.8, 40.0)}
    config: LinearConfig
    terms: tuple[Term, ...]
    base: npt.NDArray[np.float32]
    vectors: FloatMatrix

    @property
    def kernel(self) -> Kernel:
        """The kernel of the first term; most families have only one."""
        return self.terms[0].kernel

    @kernel.setter
    def kernel(self, kernel: Kernel) -> None:
        self.terms = (Term(kernel, self.config.half_life),)

    @property
    def n_items(self) -> int:
        return len(self.base)

    @final
    def score(self, histories: Histories, candidates: Positions | None = None) -> FloatMatrix:
        scores = self.score_profiles(build_profiles(histories, self.n_items))
        return scores if candidates is None else scores[:, candidates]

    def score_profiles(self, profiles: Profiles) -> FloatMatrix:
        """Raw scores, float32 [batch, n_items]. profiles: of the histories, without decay."""
        scores = np.tile(self.base, (len(profiles), 1))
        for term in self.terms:
            size, weighed = term.kernel.size, term.weigh(profiles)
            scores[:, :size] += term.kernel.propagate(weighed.where(weighed.weights > 0).matrix(size))
        return scores

    @final
    def scoring(self, histories: Histories) -> "LinearScoring":
        return LinearScoring(self, build_profiles(histories, self.n_items))

    def item_vectors(self) -> FloatMatrix:
        return self.vectors

    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        """The exact loss in score without each item of the history; negative where the score would rise."""
        return [found.of(0) for found in self.explain_lists(histories, items[:, None])]

    @final
    def explain_lists(self, histories: Histories, items: Positions) -> list[ListContributions]:
        profiles = build_profiles(histories, self.n_items)
        return profiles.contributions(self.leave_one_out_contributions(profiles, items))

    def leave_one_out_contributions(self, profiles: Profiles, items: Positions) -> FloatMatrix:
        """The loss in the scores of each row's list without each of the n history items, float32 [n, k].

        Without item j all older items move one place nearer to the present and their weights rise by the decay of one
        place. The contribution is therefore the item's own share minus that rise of the older items. Zero under
        NO_ITEM.

        profiles: without decay; items: int32 [batch, k].
        """
        known, listed = profiles.items < self.kernel.size, (items >= 0) & (items < self.kernel.size)
        values = np.zeros((len(known), items.shape[1]), dtype=np.float32)
        if not known.any() or not listed.any():
            return values
        sources, lists = np.where(known, profiles.items, 0), np.where(listed, items, 0)
        for term in self.terms:
            weights = term.weigh(profiles).weights * known
            shares = term.kernel.pairs(sources, profiles.offsets, lists) * weights[:, None]
            if term.half_life is not None:
                rise = 2.0 ** (1 / term.half_life) - 1
                shares = (shares - rise * _older_sums(shares, profiles)).astype(np.float32)
            values += shares
        return values if listed.all() else values * listed[profiles.rows]

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        added = int((positions >= self.n_items).sum())
        if not added:
            return self
        model = self._copy()
        model.base = np.concatenate([self.base, np.full(added, self.base.min(), np.float32)])
        model.vectors = np.vstack([self.vectors, np.zeros((added, self.vectors.shape[1]), np.float32)])
        return model

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        terms = [{"kernel": term.kernel.form, "half_life": term.half_life, "as_of": term.as_of} for term in self.terms]
        (path / CONFIG_FILE).write_text(json.dumps({"config": self.config.model_dump(mode="json"), "terms": terms}))
        arrays: dict[str, Any] = {
            f"kernel{place}_{name}": array
            for place, term in enumerate(self.terms)
            for name, array in term.kernel.arrays().items()
        }
        np.savez(path / ARRAYS_FILE, base=self.base, vectors=self.vectors, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        description = json.loads((path / CONFIG_FILE).read_text())
        model = cls(cls.Config.model_validate(description["config"]))
        with np.load(path / ARRAYS_FILE, allow_pickle=False) as arrays:
            model.base, model.vectors = arrays["base"], arrays["vectors"]
            terms = []
            for place, stored in enumerate(description["terms"]):
                term = present_names(stored, _EARLIER_NAMES)
                prefix = f"kernel{place}_"
                kernel = {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
                terms.append(Term(FORMS[term["kernel"]].from_arrays(kernel), term["half_life"], term["as_of"]))
        model.terms = tuple(terms)
        return model

    def _copy(self) -> Self:
        model = type(self)(self.config)
        model.__dict__.update(self.__dict__)
        return model


class LinearScoring(Scoring):
    """The scoring of a linear model. An ensemble's linear base models share the profiles."""

    def __init__(self, model: LinearRecommender, profiles: Profiles) -> None:
        """profiles: of the histories, without decay."""
        self._model, self._profiles = model, profiles
        self.scores = np.empty((len(profiles), model.n_items), dtype=np.float32)
        self.scores[:] = model.base
        for term in model.terms:
            size = term.kernel.size
            used = self._used(term)
            term.kernel.add_products(used.items, used.weights, used.offsets, self.scores[:, :size])

    def _used(self, term: Term) -> Profiles:
        """The items of the profiles that a term multiplies."""
        weighed = term.weigh(self._profiles)
        used = weighed.weights > 0
        if term.kernel.size < self._model.n_items:
            used &= weighed.items < term.kernel.size
        return weighed.where(used)

    def component_scores(self, items: Positions) -> dict[str, FloatMatrix]:
        return {self._model.family: self.scores[np.arange(len(items))[:, None], items]}

    def contributions(self, items: Positions) -> list[ListContributions]:
        return self._profiles.contributions(self.values(items))

    def values(self, items: Positions) -> FloatMatrix:
        """As `LinearRecommender.leave_one_out_contributions`, float32 [n, k]."""
        return self._model.leave_one_out_contributions(self._profiles, items)


class BaseScoring(LinearScoring):
    """The scoring of a linear model over factors whose products are left out of the scores, and added where asked for.

    For a large catalogue the product with every item takes longer than all else. Where it can change the scores of an
    ensemble but little, few items need it.
    """

    def __init__(self, model: LinearRecommender, profiles: Profiles) -> None:
        """model: with one term over `Factors`. profiles: of the histories, without decay."""
        self._model, self._profiles = model, profiles
        self._kernel = cast(Factors, model.kernel)
        used = self._used(model.terms[0])
        self._users = self._kernel.fold_in(used.items, used.weights, used.offsets)
        self.scores = np.empty((len(profiles), model.n_items), dtype=np.float32)
        self.scores[:] = model.base
        self.largest = np.linalg.norm(self._users, axis=1) * np.float32(self._kernel.largest_norm)
        """The largest product of each row with any item, float32 [batch]."""

    @staticmethod
    def suits(model: Recommender) -> bool:
        """Whether a model has one term over factors, and so many of them that leaving products out is worth it."""
        if not isinstance(model, LinearRecommender) or len(model.terms) != 1:
            return False
        kernel = model.kernel
        return isinstance(kernel, Factors) and kernel.right.size >= MIN_CELLS

    def products(self, row: int, items: Positions | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """What was left out of the scores of some items, float32 [m]. items: [m]."""
        known = items < self._kernel.size
        found = self._kernel.right.take(np.where(known, items, 0), axis=0) @ self._users[row]
        return np.asarray(np.where(known, found, 0), dtype=np.float32)

    def all_products(self) -> FloatMatrix:
        """What was left out of the scores, float32 [batch, n_items]."""
        found = np.zeros_like(self.scores)
        np.matmul(self._users, self._kernel.right.T, out=found[:, : self._kernel.size])
        return found

    def component_scores(self, items: Positions) -> dict[str, FloatMatrix]:
        found = self.scores[np.arange(len(items))[:, None], items]
        for row, listed in enumerate(items):
            found[row] += self.products(row, listed)
        return {self._model.family: found}


def _older_sums(shares: FloatMatrix, profiles: Profiles) -> npt.NDArray[np.float64]:
    """For each item the sum of the shares of the older items of its history, float64 [n, k]. shares: float32 [n, k]."""
    sums = np.zeros((len(shares) + 1, shares.shape[1]))
    np.cumsum(shares, axis=0, out=sums[1:])
    starts = np.repeat(profiles.offsets[:-1], np.diff(profiles.offsets))
    return sums[:-1] - sums[starts]
