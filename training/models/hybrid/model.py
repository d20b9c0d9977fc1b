"""The hybrid family: a learned linear ranker over what the other families say."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.splits import Holdout
from training.models.coconsumption import unit_rows
from training.models.cold_start.boost import GUIDE_WEIGHTS, Guide, Lift, find_lift, lift_again, widest
from training.models.contract import (
    Contributions,
    Ensemble,
    FloatMatrix,
    ListContributions,
    Mask,
    Positions,
    Recommender,
    RuntimeOptions,
)
from training.models.hybrid.config import HybridConfig
from training.models.hybrid.learning import Learned, learn
from training.models.hybrid.occlusion import agreement
from training.models.hybrid.queries import ask
from training.models.hybrid.scales import Scale, history_sizes, measure_growth, measure_scale
from training.models.hybrid.workload import hybrid_workload
from training.models.linear import LinearRecommender
from training.models.popularity import decayed_popularity
from training.models.profiles import build_profiles
from training.models.workload import DataSizes, Workload

DESCRIPTION_FILE = "hybrid.json"
ARRAYS_FILE = "hybrid.npz"
CONTENT = "content-based"
SELDOM = 0.2
"""Share of events that repeat an item of their user, under which a user's earlier items are not asked for."""


class Hybrid(Ensemble):
    """score = sum over components of w * (s - center) / spread, plus a weight times popularity, in one scale.

    The scale is that of the linear families: their scores grow with a history of n items as n ** growth, and whatever
    does not is multiplied by the missing power of n. So a short history weighs as much as a long one against
    popularity, and what one item of a history did to a score adds up over the components.
    Weights are non-negative and learned listwise on questions that came after everything the components know, and drawn
    to what the components reach alone where few users asked them.
    Components that read no metadata give their lowest score to what nobody has had yet. Newcomers get a lift in return,
    the same for all of them, so that the others choose which of them take a share of the lists. Where one component is
    kept, which knows nothing of newcomers, it speaks alone of all other items, and content of them.
    """

    family = "hybrid"
    Config = HybridConfig
    config: HybridConfig
    learned: Learned
    growth: float
    scales: dict[str, Scale]
    explained_by: list[str]  # the components whose contributions are given as evidence
    evidence_agreement: float | None  # share of it that leaving out confirmed; None where there is none
    popularity: npt.NDArray[np.float32]  # [n_items] of unit spread, not negative
    newcomers: Mask  # [n_items] items without an event
    lift: Lift  # of newcomers
    guide: Guide | None

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        if not self.base_models:
            raise ValueError("hybrid needs fitted base models")
        if not len(dataset.interactions):
            raise ValueError("hybrid cannot learn without interactions: record some first")
        rng = np.random.default_rng(options.seed)
        self._check_sizes(dataset.n_items)
        if self.queries is None:
            past, questions = self._ask(dataset, rng)
        else:
            past, questions = dataset, self.queries.sample(self.config.max_questions, options.seed)
            self.queries = None
        self._measure(past, measure_growth(self.base_models, self._sample(past)))
        self.learned = learn(list(self.base_models), self._features, questions, self.config.ranker, rng)
        self.lift = self._find_lift(questions)
        asked = np.flatnonzero(questions.histories.lengths)
        asked = rng.choice(asked, min(len(asked), self.config.evidence_users), replace=False)
        self._choose_evidence(questions.histories.take(np.sort(asked)))
        return self

    def _ask(self, dataset: Dataset, rng: np.random.Generator) -> tuple[Dataset, Holdout]:
        """What the components know, and questions about the events after that."""
        times = dataset.interactions.timestamps
        since = self._window(dataset) if self.known_until is None else self.known_until
        past = dataset.where(times < since)
        if not len(past.interactions) or len(past.interactions) == len(times):
            raise ValueError("hybrid needs events before and after the moment until which its components know")
        mask_seen = self.config.mask_seen
        if mask_seen is None:
            mask_seen = 1 - dataset.seen.nnz / len(times) < SELDOM
        return past, ask(dataset, since, self.config.questions_per_user, self.config.max_questions, mask_seen, rng)

    def with_refitted(self, base_models: Mapping[str, Recommender], dataset: Dataset) -> Self:
        ensemble = self.with_base_models(base_models)
        ensemble._check_sizes(dataset.n_items)
        ensemble._measure(dataset, self.growth)
        ensemble.lift = Lift()
        users = self._newest(dataset)
        histories, seen = dataset.histories(users), dataset.seen[users]
        ensemble.lift = lift_again(self.lift, ensemble._blended, ensemble.newcomers, histories, seen)
        return ensemble

    @classmethod
    def workload(
        cls,
        sizes: DataSizes,
        config: HybridConfig,
        refit: bool = False,
        base_models: Mapping[str, Workload] | None = None,
    ) -> Workload:
        return hybrid_workload(sizes, config, refit, base_models or {})

    @property
    def kept_base_model(self) -> str | None:
        return self.learned.kept_base_model

    def record(self) -> dict[str, Any]:
        """The weights, and NDCG@10 of the blend and of each component on the questions it learned from."""
        learned = self.learned
        return {
            "ranker_questions": learned.n_questions,
            "ranker_ndcg": learned.ndcg,
            "ranker_gain": learned.gain.mean,
            "ranker_gain_low": learned.gain.low,
            "ranker_gain_high": learned.gain.high,
            "ranker_breadth": learned.breadth,
            "evidence_agreement": self.evidence_agreement,
            "weight_popularity": learned.popularity_weight,
            "newcomer_share": self.lift.share,
            "newcomer_lift": self.lift.value,
            **{f"weight_{family}": weight for family, weight in learned.weights.items()},
            **{f"ranker_ndcg_{family}": figure for family, figure in learned.base_model_ndcg.items()},
        }

    @property
    def n_items(self) -> int:
        return len(self.popularity)

    def component_scores(self, histories: Histories) -> dict[str, FloatMatrix]:
        """What each component adds, and under this family's own name what popularity and the lift of newcomers add."""
        profiles = build_profiles(histories, self.n_items)
        sizes = profiles.sizes
        parts = {}
        for family, model in self._weighty.items():
            scores = model.score_profiles(profiles) if isinstance(model, LinearRecommender) else model.score(histories)
            parts[family] = (scores - np.float32(self.scales[family].center)) * self._factors(family, sizes)[:, None]
            if self._guides(family):
                parts[family] *= self.newcomers
        own = self._own()
        if own.any():
            parts[self.family] = (sizes**self.growth)[:, None] * own
        return parts

    def score(self, histories: Histories, candidates: Positions | None = None) -> FloatMatrix:
        first, *others = self.component_scores(histories).values()
        scores = sum(others, start=first)
        return scores if candidates is None else scores[:, candidates]

    def item_vectors(self) -> FloatMatrix:
        """Vectors whose products are the components' cosines, weighted as the components are."""
        weights = self.learned.weights
        return unit_rows(
            np.hstack([np.sqrt(weights[family]) * model.item_vectors() for family, model in self._weighty.items()])
        )

    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        explained = []
        for found in self.explain_lists(histories, items[:, None]):
            order = np.argsort(-found.values[:, 0], kind="stable")
            explained.append(Contributions(found.items[order], found.values[order, 0]))
        return explained

    def explain_lists(self, histories: Histories, items: Positions) -> list[ListContributions]:
        """The contributions of the components in `explained_by`, weighted.

        A longer history also adds weight to popularity: without an item the score of a list's item falls by what is
        said here and that little more, which no item of the history has to itself.
        """
        profiles = build_profiles(histories, self.n_items)
        values = np.zeros((len(profiles.items), items.shape[1]), dtype=np.float32)
        for family in self.explained_by:
            model, factors = self.base_models[family], self._factors(family, profiles.sizes)
            if isinstance(model, LinearRecommender):
                leave_one_out_contributions = model.leave_one_out_contributions(profiles, items)
            else:
                leave_one_out_contributions = profiles.tabulated(model.explain_lists(histories, items), items.shape[1])
            if self._guides(family):
                leave_one_out_contributions = leave_one_out_contributions * self.newcomers[items][profiles.rows]
            values += factors[profiles.rows, None] * leave_one_out_contributions
        return profiles.contributions(values)

    def with_base_models(self, base_models: Mapping[str, Recommender]) -> Self:
        """This blend over other components; items that came after the fit have the median popularity."""
        missing = sorted(set(self.learned.weights) - set(base_models))
        if missing:
            raise ValueError(f"this hybrid blends {', '.join(self.learned.weights)}; {', '.join(missing)} missing")
        ensemble = type(self)(self.config)
        ensemble.__dict__.update(self.__dict__)
        ensemble.base_models = {family: base_models[family].as_base_model() for family in self.learned.weights}
        n_items = next(iter(ensemble.base_models.values())).n_items
        ensemble._check_sizes(n_items)
        added = max(0, n_items - len(self.popularity))
        ensemble.popularity = np.concatenate(
            [self.popularity[:n_items], np.full(added, np.median(self.popularity), np.float32)]
        )
        ensemble.newcomers = np.concatenate([self.newcomers[:n_items], np.ones(added, dtype=bool)])
        return ensemble

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        if not len(positions):
            return self
        laid_over = {family: model.with_items(positions, metadata) for family, model in self.base_models.items()}
        return self.with_base_models(laid_over)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        description = {
            "config": self.config.model_dump(mode="json"),
            "learned": self.learned.model_dump(mode="json"),
            "growth": self.growth,
            "explained_by": self.explained_by,
            "evidence_agreement": self.evidence_agreement,
            "scales": {family: asdict(scale) for family, scale in self.scales.items()},
            "lift": self.lift.model_dump(mode="json"),
            "guide": self.guide and self.guide.model_dump(mode="json"),
        }
        (path / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2))
        np.savez(path / ARRAYS_FILE, popularity=self.popularity, newcomers=self.newcomers)

    @classmethod
    def load(cls, path: Path, base_models: Mapping[str, Recommender] | None = None) -> Self:
        description = json.loads((path / DESCRIPTION_FILE).read_text())
        model = cls(cls.Config.model_validate(description["config"]))
        model.learned = Learned.model_validate(description["learned"])
        model.growth = description["growth"]
        model.explained_by = description["explained_by"]
        model.evidence_agreement = description["evidence_agreement"]
        model.lift = Lift.model_validate(description["lift"])
        model.guide = description["guide"] and Guide.model_validate(description["guide"])
        model.scales = {family: Scale(**scale) for family, scale in description["scales"].items()}
        with np.load(path / ARRAYS_FILE, allow_pickle=False) as arrays:
            model.popularity, model.newcomers = arrays["popularity"], arrays["newcomers"]
        return model.with_base_models(base_models or {})

    @property
    def _weighty(self) -> dict[str, Recommender]:
        """The components that have a say."""
        weights = self.learned.weights
        return {family: self.base_models[family] for family in weights if weights[family] > 0 or self._guides(family)}

    def _guides(self, family: str) -> bool:
        return self.guide is not None and self.guide.family == family

    def _choose_evidence(self, histories: Histories) -> None:
        """Set whose contributions are given: those of the linear components, which are exact and cost next to nothing.

        Where they leave too much unsaid to be true of the blend, those of all components; where these are not either,
        none. histories: users to check it on.
        """
        blended = [family for family in self._weighty if not self._guides(family)]
        exact = [family for family in blended if isinstance(self.base_models[family], LinearRecommender)]
        for families in (exact, blended):
            self.explained_by = [*families, self.guide.family] if families and self.guide else families
            self.evidence_agreement = agreement(self, histories) if len(histories) else None
            if self.evidence_agreement is not None and self.evidence_agreement >= self.config.required_agreement:
                return
        self.explained_by = []

    def _factors(self, family: str, sizes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What a component's scores are multiplied by, float32 [batch], for histories of so many distinct items."""
        scale, weight = self.scales[family], self.learned.weights[family]
        if self.guide is not None and self.guide.family == family:
            weight = self.guide.weight
        return (weight / scale.spread * sizes ** (self.growth - scale.growth)).astype(np.float32)

    def _features(self, histories: Histories) -> FloatMatrix:
        """What the ranker learns from: the parts before their weights, each row divided by size ** growth."""
        sizes = history_sizes(histories, self.n_items)[:, None]
        features = np.empty((len(histories), self.n_items, len(self.base_models) + 1), dtype=np.float32)
        for index, (family, model) in enumerate(self.base_models.items()):
            scale = self.scales[family]
            features[:, :, index] = (model.score(histories) - scale.center) / (scale.spread * sizes**scale.growth)
        features[:, :, -1] = self.popularity
        return features

    def _measure(self, dataset: Dataset, growth: float) -> None:
        """Set what belongs to the components' scores and to the moment: scales and popularity."""
        histories = self._sample(dataset)
        self.growth = growth
        self.scales = {family: measure_scale(model, histories, growth) for family, model in self.base_models.items()}
        popularity = decayed_popularity(dataset, self.config.popularity_half_life_days)
        self.popularity = popularity / (popularity.std() or np.float32(1))
        self.newcomers = np.bincount(dataset.interactions.items, minlength=dataset.n_items) == 0

    def _own(self) -> npt.NDArray[np.float32]:
        """What belongs to no component, for a history of one item, float32 [n_items]."""
        lift = np.float32(self.lift.value or 0) * self.newcomers
        return (np.float32(self.learned.popularity_weight) * self.popularity + lift).astype(np.float32)

    def _find_lift(self, questions: Holdout) -> Lift:
        """What newcomers get; nothing where one component is kept and no other tells them apart."""
        self.lift, self.guide = Lift(), None
        kept = self.learned.kept_base_model
        if kept is not None and (kept == CONTENT or CONTENT not in self.base_models):
            return self.lift

        most, cost = self.config.newcomers, self.config.newcomer_cost

        def lift_under(guide: Guide | None) -> Lift:
            self.guide = guide
            return find_lift(self._blended, self.newcomers, questions, most, cost)

        guides = [None] if kept is None else [Guide(family=CONTENT, weight=weight) for weight in GUIDE_WEIGHTS]
        lift, self.guide = widest(guides, lift_under, most)
        return lift

    def _blended(self, histories: Histories) -> FloatMatrix:
        """Scores of histories of any size as those of one item: each row divided by size ** growth."""
        sizes = build_profiles(histories, self.n_items).sizes
        return self.score(histories) / (sizes**self.growth)[:, None]

    def _window(self, dataset: Dataset) -> int:
        """The moment at which the newest share of events begins."""
        return int(np.quantile(dataset.interactions.timestamps, 1 - self.config.window, method="higher"))

    def _newest(self, dataset: Dataset) -> npt.NDArray[np.int32]:
        """Users who came within the newest window: they are the likeliest to come now."""
        events = dataset.interactions
        return self._drawn(events.users[events.timestamps >= self._window(dataset)])

    def _sample(self, dataset: Dataset) -> Histories:
        """Histories of users who have one."""
        return dataset.histories(self._drawn(dataset.interactions.users))

    def _drawn(self, users: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Distinct users of these, no more than scales are measured on."""
        users = np.unique(users)
        if len(users) > self.config.scale_users:
            users = np.sort(np.random.default_rng(0).choice(users, self.config.scale_users, replace=False))
        return users

    def _check_sizes(self, n_items: int) -> None:
        sizes = {family: model.n_items for family, model in self.base_models.items()}
        if set(sizes.values()) - {n_items}:
            raise ValueError(f"components must score the same {n_items} items, not {sizes}")
