"""The hybrid family: a learned linear ranker over the scores of base models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from feature_store.online import Histories
from training.data.dataset import Dataset
from training.data.profile import DataProfile
from training.data.splits import Holdout
from training.models.coconsumption import unit_rows
from training.models.cold_start.boost import (
    COLD_START_WEIGHTS,
    ColdItemBoost,
    ColdStartModel,
    find_boost,
    largest_boost,
    resized_boost,
)
from training.models.cold_start.items import cold_items
from training.models.contract import Ensemble, FloatMatrix, Mask, Positions, Recommender, RuntimeOptions
from training.models.default_values import family_values
from training.models.hybrid.config import HybridConfig
from training.models.hybrid.learning import LearnedRanker, learn_ranker
from training.models.hybrid.occlusion import agreement
from training.models.hybrid.queries import split_queries
from training.models.hybrid.sampling import sample_users, window_start
from training.models.hybrid.scales import Scale, history_sizes, measure_growth, measure_scale, raw_scales
from training.models.hybrid.scoring import HybridScoring
from training.models.hybrid.storage import HybridState, read_state, write_state
from training.models.hybrid.workload import hybrid_workload
from training.models.linear import LinearRecommender
from training.models.lists import Contributions, ListContributions
from training.models.popularity import Popularity, decayed_popularity
from training.models.profiles import build_profiles
from training.models.workload import DataSizes, Workload

CONTENT = "content-based"


class Hybrid(Ensemble):
    """score = sum over base models of w * (s - center) / spread, plus a weight times popularity, on one scale.

    The scale is that of the linear base models, whose scores grow with a history of n items as n ** growth. Every other
    term is multiplied by the power of n that gives it the same growth. So the balance between base models and
    popularity does not depend on the length of the history, and contributions add up over the base models.

    The weights are non-negative and learned listwise from queries that came after everything the base models know; with
    few users they are shrunk towards the NDCG of each base model alone. Where no ensemble is better than the best base
    model (`selection.choose_components`), that one is kept; its scores stay as they are, and so does its order.

    Base models that read no metadata give cold items their lowest score, so all cold items get the same boost, with
    which they take a share of the lists. Where a single base model other than the content-based one is kept, the
    content-based one is the cold-start model: its scores are added for cold items alone, since most base models score
    all cold items alike.
    """

    family = "hybrid"
    Config = HybridConfig
    config: HybridConfig
    learned: LearnedRanker
    growth: float
    scales: dict[str, Scale]
    explained_by: list[str]  # the base models whose contributions are given as evidence
    evidence_agreement: float | None  # share of the evidence that occlusion confirmed; None where there is none
    popularity: npt.NDArray[np.float32]  # [n_items] with a standard deviation of 1, not negative
    cold_items: Mask  # bool [n_items]
    cold_item_boost: ColdItemBoost
    cold_start_model: ColdStartModel | None
    _own_of: tuple[ColdItemBoost, npt.NDArray[np.float32], npt.NDArray[np.float32] | None] | None = None

    @classmethod
    def default_config(cls, profile: DataProfile) -> HybridConfig:
        """Recent popularity is that of the baseline, so that an ensemble can be what the baseline is."""
        half_life = Popularity.default_config(profile).model_dump()["half_life_days"]
        return HybridConfig.model_validate({**family_values(cls.family), "popularity_half_life_days": half_life})

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        if not self.base_models:
            raise ValueError("hybrid needs fitted base models")
        if not len(dataset.interactions):
            raise ValueError("hybrid cannot learn without interactions: record some first")
        rng = np.random.default_rng(options.seed)
        self._check_sizes(dataset.n_items)
        if self.queries is None:
            past, queries = split_queries(dataset, self.known_until, self.config, rng)
        else:
            if not len(self.queries):
                raise ValueError("hybrid has no queries to learn from: nobody chose anything in their window")
            past, queries = dataset, self.queries.sample(self.config.max_queries, options.seed)
            self.queries = None
        self._measure(past, measure_growth(self.base_models, self._sample(past)))
        self.learned = learn_ranker(list(self.base_models), self._features, queries, self.config.ranker, rng)
        self._keep_scores()
        self.cold_item_boost = self._find_boost(queries)
        rows = np.flatnonzero(queries.histories.lengths)
        rows = rng.choice(rows, min(len(rows), self.config.evidence_users), replace=False)
        self._choose_evidence(queries.histories.take(np.sort(rows)))
        return self

    def with_refitted(self, base_models: Mapping[str, Recommender], dataset: Dataset) -> Self:
        model = self.with_base_models(base_models)
        model._check_sizes(dataset.n_items)
        model._measure(dataset, self.growth)
        model._keep_scores()
        model.cold_item_boost = ColdItemBoost()
        users = sample_users(dataset, self.config.scale_users, window_start(dataset, self.config.window))
        histories, seen = dataset.histories(users), dataset.seen[users]
        model.cold_item_boost = resized_boost(
            self.cold_item_boost, model._scores_of_one_item, model.cold_items, histories, seen
        )
        return model

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
        """What it is made of and why, and NDCG@10 of that and of each base model on the queries it learned from.

        `ranker_gain` is of the best ensemble over the best base model, whichever of them was chosen.
        """
        learned = self.learned
        return {
            "components": learned.choice,
            "ranker_queries": learned.n_queries,
            "ranker_ndcg": learned.ndcg,
            "ranker_gain": learned.gain.mean,
            "ranker_gain_low": learned.gain.low,
            "ranker_gain_high": learned.gain.high,
            "ranker_aggregate_diversity": learned.aggregate_diversity,
            "evidence_agreement": self.evidence_agreement,
            "weight_popularity": learned.popularity_weight,
            "cold_item_share": self.cold_item_boost.share,
            "cold_item_boost": self.cold_item_boost.value,
            **{f"weight_{family}": weight for family, weight in learned.weights.items()},
            **{f"ranker_ndcg_{family}": figure for family, figure in learned.base_model_ndcg.items()},
        }

    @property
    def n_items(self) -> int:
        return len(self.popularity)

    def component_scores(self, histories: Histories) -> dict[str, FloatMatrix]:
        """The weighted scores of each base model, and under this family's own name popularity and the boost."""
        profiles = build_profiles(histories, self.n_items)
        sizes = profiles.sizes
        found = {}
        for family, model in self.used_base_models.items():
            scores = model.score_profiles(profiles) if isinstance(model, LinearRecommender) else model.score(histories)
            found[family] = (scores - np.float32(self.scales[family].center)) * self.factors(family, sizes)[:, None]
            if self.is_cold_start_model(family):
                found[family] *= self.cold_items
        own = self._own_scores()
        if own.any():
            found[self.family] = (sizes**self.growth)[:, None] * own
        return found

    def score(self, histories: Histories, candidates: Positions | None = None) -> FloatMatrix:
        first, *others = self.component_scores(histories).values()
        scores = sum(others, start=first)
        return scores if candidates is None else scores[:, candidates]

    def scoring(self, histories: Histories) -> HybridScoring:
        return HybridScoring(self, histories)

    def item_vectors(self) -> FloatMatrix:
        """Unit vectors whose dot products are the base models' cosines, weighted as the base models are."""
        weights = self.learned.weights
        return unit_rows(
            np.hstack(
                [np.sqrt(weights[family]) * model.item_vectors() for family, model in self.used_base_models.items()]
            )
        )

    def explain(self, histories: Histories, items: Positions) -> list[Contributions]:
        return [found.of(0) for found in self.explain_lists(histories, items[:, None])]

    def explain_lists(self, histories: Histories, items: Positions) -> list[ListContributions]:
        """The weighted contributions of the base models in `explained_by`.

        A longer history also increases the weight of popularity. So without a history item the score also falls by a
        small amount of popularity, which belongs to no single item and is left out.
        """
        profiles = build_profiles(histories, self.n_items)
        values = np.zeros((len(profiles.items), items.shape[1]), dtype=np.float32)
        for family in self.explained_by:
            model, factors = self.base_models[family], self.factors(family, profiles.sizes)
            if isinstance(model, LinearRecommender):
                contributions = model.leave_one_out_contributions(profiles, items)
            else:
                contributions = profiles.tabulated(model.explain_lists(histories, items), items.shape[1])
            if self.is_cold_start_model(family):
                contributions = contributions * self.cold_items[items][profiles.rows]
            values += factors[profiles.rows, None] * contributions
        return profiles.contributions(values)

    def with_base_models(self, base_models: Mapping[str, Recommender]) -> Self:
        """The same hybrid over other base models; items that they know beyond it are cold, of median popularity."""
        missing = sorted(set(self.learned.weights) - set(base_models))
        if missing:
            raise ValueError(f"this hybrid combines {', '.join(self.learned.weights)}; {', '.join(missing)} missing")
        model = type(self)(self.config)
        model.__dict__.update(self.__dict__)
        model.base_models = {family: base_models[family].as_base_model() for family in self.learned.weights}
        n_items = next(iter(model.base_models.values())).n_items
        model._check_sizes(n_items)
        added = max(0, n_items - len(self.popularity))
        model.popularity = np.concatenate(
            [self.popularity[:n_items], np.full(added, np.median(self.popularity), np.float32)]
        )
        model.cold_items = np.concatenate([self.cold_items[:n_items], np.ones(added, dtype=bool)])
        return model

    def with_items(self, positions: Positions, metadata: Sequence[dict[str, Any]]) -> Self:
        if not len(positions):
            return self
        extended = {family: model.with_items(positions, metadata) for family, model in self.base_models.items()}
        return self.with_base_models(extended)

    def save(self, path: Path) -> None:
        state = HybridState(**{name: getattr(self, name) for name in HybridState.__dataclass_fields__})
        write_state(state, self.config, path)

    @classmethod
    def load(cls, path: Path, base_models: Mapping[str, Recommender] | None = None) -> Self:
        config, state = read_state(path)
        model = cls(config)
        model.__dict__.update(state.__dict__)
        return model.with_base_models(base_models or {})

    @property
    def used_base_models(self) -> dict[str, Recommender]:
        """The base models that influence scores."""
        weights = self.learned.weights
        used = [family for family in weights if weights[family] > 0 or self.is_cold_start_model(family)]
        return {family: self.base_models[family] for family in used}

    @property
    def own_scores(self) -> npt.NDArray[np.float32] | None:
        """`_own_scores`, computed once for a hybrid that does not change any more; None where all are zero."""
        if (
            self._own_of is None
            or self._own_of[0] is not self.cold_item_boost
            or self._own_of[1] is not self.popularity
        ):
            found = self._own_scores()
            self._own_of = self.cold_item_boost, self.popularity, found if found.any() else None
        return self._own_of[2]

    def is_cold_start_model(self, family: str) -> bool:
        return self.cold_start_model is not None and self.cold_start_model.family == family

    def _choose_evidence(self, histories: Histories) -> None:
        """Choose the base models whose contributions are given as evidence, and check them by occlusion.

        The linear base models are tried first, since their contributions are exact and cheap. If occlusion does not
        confirm enough of these, because the other base models matter too much, all base models are tried. If it does
        not confirm enough of those either, the hybrid gives no evidence.

        histories: of the users on whom the evidence is checked.
        """
        ranking = [family for family in self.used_base_models if not self.is_cold_start_model(family)]
        exact = [family for family in ranking if isinstance(self.base_models[family], LinearRecommender)]
        for families in (exact, ranking):
            cold_start = [self.cold_start_model.family] if families and self.cold_start_model else []
            self.explained_by = [*families, *cold_start]
            self.evidence_agreement = agreement(self, histories) if len(histories) else None
            if self.evidence_agreement is not None and self.evidence_agreement >= self.config.required_agreement:
                return
        self.explained_by = []

    def factors(self, family: str, sizes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The factor on a base model's scores, float32 [batch]. sizes: distinct items of each history."""
        scale, weight = self.scales[family], self.learned.weights[family]
        if self.cold_start_model is not None and self.cold_start_model.family == family:
            weight = self.cold_start_model.weight
        return (weight / scale.spread * sizes ** (self.growth - scale.growth)).astype(np.float32)

    def _features(self, histories: Histories) -> FloatMatrix:
        """Inputs of the ranker: component scores before their weights, each row divided by size ** growth."""
        sizes = history_sizes(histories, self.n_items)[:, None]
        features = np.empty((len(histories), self.n_items, len(self.base_models) + 1), dtype=np.float32)
        for index, (family, model) in enumerate(self.base_models.items()):
            scale = self.scales[family]
            features[:, :, index] = (model.score(histories) - scale.center) / (scale.spread * sizes**scale.growth)
        features[:, :, -1] = self.popularity
        return features

    def _measure(self, dataset: Dataset, growth: float) -> None:
        """Measure what depends on the base models and on the data set: scales, popularity and cold items."""
        histories = self._sample(dataset)
        self.growth = growth
        self.scales = {family: measure_scale(model, histories, growth) for family, model in self.base_models.items()}
        popularity = decayed_popularity(dataset, self.config.popularity_half_life_days)
        self.popularity = popularity / (popularity.std() or np.float32(1))
        self.cold_items = cold_items(dataset.interactions.items, dataset.n_items)

    def _keep_scores(self) -> None:
        """Leave the raw scores of a kept base model as they are, and give everything else their scale and growth."""
        kept = self.learned.kept_base_model
        if kept is not None:
            self.scales, unit = raw_scales(self.scales, kept)
            self.growth = self.scales[kept].growth
            self.popularity = self.popularity * np.float32(unit)

    def _own_scores(self) -> npt.NDArray[np.float32]:
        """Scores that belong to no base model, for a history of one item, float32 [n_items]."""
        boost = np.float32(self.cold_item_boost.value or 0) * self.cold_items
        return (np.float32(self.learned.popularity_weight) * self.popularity + boost).astype(np.float32)

    def _find_boost(self, queries: Holdout) -> ColdItemBoost:
        """Choose cold-start model and boost; no boost where one base model is kept and no other ranks cold items."""
        self.cold_item_boost, self.cold_start_model = ColdItemBoost(), None
        kept = self.learned.kept_base_model
        if kept is not None and (kept == CONTENT or CONTENT not in self.base_models):
            return self.cold_item_boost
        share, cost = self.config.cold_item_share, self.config.cold_item_cost

        def boost_with(model: ColdStartModel | None) -> ColdItemBoost:
            self.cold_start_model = model
            return find_boost(self._scores_of_one_item, self.cold_items, queries, share, cost)

        weights = [None] if kept is None else [ColdStartModel(family=CONTENT, weight=w) for w in COLD_START_WEIGHTS]
        boost, self.cold_start_model = largest_boost(weights, boost_with, share)
        return boost

    def _scores_of_one_item(self, histories: Histories) -> FloatMatrix:
        """Scores on the scale of a history of one item: each row divided by size ** growth."""
        sizes = build_profiles(histories, self.n_items).sizes
        return self.score(histories) / (sizes**self.growth)[:, None]

    def _sample(self, dataset: Dataset) -> Histories:
        """Histories of a sample of the users."""
        return dataset.histories(sample_users(dataset, self.config.scale_users))

    def _check_sizes(self, n_items: int) -> None:
        sizes = {family: model.n_items for family, model in self.base_models.items()}
        if set(sizes.values()) - {n_items}:
            raise ValueError(f"base models must score the same {n_items} items, not {sizes}")
