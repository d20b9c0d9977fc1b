"""Linear families: score(history, i) = prior[i] + sum over terms t and history items j of weight_t(j) * K_t[j, i].

They differ in how many terms they have and where each K comes from. Being linear, they say exactly what each item of a
history did to a score.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from feature_store.online import Histories
from training.models.contract import (
    Contributions,
    FloatMatrix,
    ListContributions,
    ModelConfig,
    Positions,
    Recommender,
)
from training.models.kernels import FORMS, Kernel
from training.models.profiles import Profiles, build_profiles

CONFIG_FILE = "linear.json"
ARRAYS_FILE = "linear.npz"


class LinearConfig(ModelConfig):
    """What linear families share."""

    half_life: float | None = Field(
        default=50.0, gt=0, description="distinct items after which an item of a history counts half; null: no ageing"
    )
    prior: float = Field(
        default=0.01, ge=0, description="how much the time-decayed popularity of items adds to every score, cold or not"
    )


@dataclass(frozen=True)
class Term:
    """One way in which a history speaks for items."""

    kernel: Kernel  # among the items of the training data (or of the catalogue, where content gives it)
    half_life: float | None  # distinct items after which an item of a history counts half; None: no ageing
    moment: int | None = (
        None  # microseconds; where given, items count by how often they were chosen of late, as of then
    )

    def read(self, profiles: Profiles) -> Profiles:
        """What this term multiplies its kernel with. profiles: without ageing."""
        return (profiles if self.moment is None else profiles.recent(self.moment)).aged(self.half_life)


class LinearRecommender(Recommender):
    """A recommender over kernels. Subclasses fit `terms` (or `kernel`, where there is one), `base` and `vectors`.

    An ensemble of several such families builds the profiles once, and calls `score_profiles` and
    `leave_one_out_contributions` of each.

    Attributes:
        terms: kernels of one size, with the ageing of each.
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
        """That of the first term, which most families have alone."""
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
        """Raw scores of histories read already, float32 [batch, n_items]. profiles: without ageing."""
        scores = np.tile(self.base, (len(profiles), 1))
        for term in self.terms:
            size, aged = term.kernel.size, term.read(profiles)
            scores[:, :size] += term.kernel.propagate(aged.where(aged.weights > 0).matrix(size))
        return scores

    def item_vectors(self) -> FloatMatrix:
        return self.vectors

    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        """What the score would lose without each item of the history, exactly; negative where it would gain."""
        explained = []
        for found in self.explain_lists(histories, items[:, None]):
            order = np.argsort(-found.values[:, 0], kind="stable")
            explained.append(Contributions(found.items[order], found.values[order, 0]))
        return explained

    @final
    def explain_lists(self, histories: Histories, items: Positions) -> list[ListContributions]:
        profiles = build_profiles(histories, self.n_items)
        return profiles.contributions(self.leave_one_out_contributions(profiles, items))

    def leave_one_out_contributions(self, profiles: Profiles, items: Positions) -> FloatMatrix:
        """What each of the n items of the histories adds to the scores of its row's list, float32 [n, k].

        Without item j the older ones are one place nearer to the present and count 1 / decay as much: its own share
        less that gain is the whole difference. Zero under NO_ITEM.

        profiles: without ageing; items: int32 [batch, k].
        """
        known, listed = profiles.items < self.kernel.size, (items >= 0) & (items < self.kernel.size)
        leave_one_out_contributions = np.zeros((len(known), items.shape[1]), dtype=np.float32)
        if not known.any() or not listed.any():
            return leave_one_out_contributions
        sources, lists = np.where(known, profiles.items, 0), np.where(listed, items, 0)
        for term in self.terms:
            weights = term.read(profiles).weights * known
            shares = term.kernel.pairs(sources, profiles.offsets, lists) * weights[:, None]
            if term.half_life is not None:
                gain = 2.0 ** (1 / term.half_life) - 1
                shares = (shares - gain * _before(shares, profiles)).astype(np.float32)
            leave_one_out_contributions += shares
        return leave_one_out_contributions if listed.all() else leave_one_out_contributions * listed[profiles.rows]

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
        terms = [
            {"kernel": term.kernel.form, "half_life": term.half_life, "moment": term.moment} for term in self.terms
        ]
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
            for place, term in enumerate(description["terms"]):
                prefix = f"kernel{place}_"
                kernel = {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}
                terms.append(Term(FORMS[term["kernel"]].from_arrays(kernel), term["half_life"], term["moment"]))
        model.terms = tuple(terms)
        return model

    def _copy(self) -> Self:
        model = type(self)(self.config)
        model.__dict__.update(self.__dict__)
        return model


def _before(shares: FloatMatrix, profiles: Profiles) -> npt.NDArray[np.float64]:
    """Of each item the sum of the shares of the older ones of its history, [n, k]. shares: those of the items."""
    sums = np.zeros((len(shares) + 1, shares.shape[1]))
    np.cumsum(shares, axis=0, out=sums[1:])
    starts = np.repeat(profiles.offsets[:-1], np.diff(profiles.offsets))
    return sums[:-1] - sums[starts]
