"""The collaborative family: which items the same users choose and in what order, without any metadata."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import AliasChoices, Field

from training.data.dataset import MIN_REPEAT_SHARE, Dataset
from training.data.profile import DataProfile, preferred_number
from training.models.coconsumption import item_vectors, prior_scores
from training.models.collaborative.candidates import candidates_of, named_method
from training.models.collaborative.methods import Learner, Method
from training.models.collaborative.selection import MethodChoice, choose_methods
from training.models.collaborative.workload import affordable, collaborative_workload
from training.models.contract import RuntimeOptions
from training.models.default_values import family_values
from training.models.held_out import CHOICE_FILE
from training.models.linear import LinearConfig, LinearRecommender
from training.models.workload import DataSizes, Workload

CHOICE_SHARE = 0.25
"""Share of the time of a fit that the candidates of a choice may take, by their count of operations."""
RIDGE_PER_EVENT = 2.5
"""Ridge of EASE for each event of an item, on average."""


class CollaborativeConfig(LinearConfig):
    """Hyper-parameters of the methods, and which of them learns the weights."""

    method: Literal["auto", "by-size", "transitions", "ease", "neighbours"] = Field(
        default="by-size",
        description="how weights are learned; by-size: transitions where `transition_items` allows them, else EASE; "
        "auto: what ranks held-out events best, as the default for data has it (`selection`)",
    )
    held_out_users: int = Field(default=5_000, ge=0, description="largest number of users that `auto` learns from")
    decay_half_lives: tuple[float, ...] = Field(
        default=(1.0, 20.0),
        validation_alias=AliasChoices("decay_half_lives", "memories"),
        description="half-lives, in events, of the decayed histories that predict the next item; none: EASE",
    )
    transition_regularisation: float = Field(
        default=300.0, gt=0, validation_alias=AliasChoices("transition_regularisation", "memory_regularisation")
    )
    transition_items: int = Field(
        default=8_000,
        ge=0,
        validation_alias=AliasChoices("transition_items", "memory_items"),
        description="largest number of items times half-lives for that regression, whose cost grows with its cube",
    )
    single_transition_items: int = Field(
        default=20_000, ge=0, description="largest catalogue for which `auto` tries transitions with one half-life"
    )
    regularisation: float = Field(default=1000.0, gt=0, description="ridge of EASE")
    closed_form_items: int = Field(default=20_000, ge=0, description="largest catalogue of which EASE covers all items")
    head_items: int = Field(default=8_000, ge=0, description="most chosen items that EASE covers of a larger catalogue")
    dense_items: int = Field(
        default=4_000, ge=0, description="largest catalogue for which the weight of every pair is kept"
    )
    kept_weights: int = Field(
        default=300, ge=1, description="largest weights per item that are kept of a larger catalogue"
    )
    repeat_weight: float = Field(
        default=0.5,
        ge=0,
        validation_alias=AliasChoices("repeat_weight", "repetition"),
        description="gain of an item per recent event of the user with it, where users repeat items",
    )
    neighbours: int = Field(default=100, ge=1, description="neighbours that are kept per item")
    shrinkage: float = Field(default=20.0, ge=0, description="added to the denominator of their cosine")
    factors: int = Field(
        default=32, ge=1, description="width of the factorisation that covers catalogues too large for EASE"
    )
    factor_regularisation: float = Field(default=1.0, gt=0)
    confidence: float = Field(default=5.0, gt=0, description="weight of an observed pair over an unobserved one")
    iterations: int = Field(default=15, ge=1)
    dimensions: int = Field(default=64, ge=1, description="width of the vectors that `similar` compares")


class Collaborative(LinearRecommender):
    """Item-to-item weights, learned by one of three methods or as the sum of two.

    Transitions are a regression of the next item on decayed histories, for small catalogues. EASE covers all items of
    a catalogue of up to `closed_form_items`; of a larger one the most chosen items, and a factorisation with a linear
    fold-in gives the scores of all others. Neighbours are items with common users. EASE and neighbours get a term for
    repeat consumption, which their zero diagonals leave out, where users repeat items.
    """

    family = "collaborative"
    memory_advice = (
        "lower `dimensions` (the vectors of `similar`), `head_items` and `closed_form_items` (the Gram matrix of EASE)"
    )
    Config = CollaborativeConfig
    config: CollaborativeConfig
    choice: MethodChoice | None = None
    """What `auto` has chosen; None before a fit, with another method, and where too little could be held out."""

    @classmethod
    def default_config(cls, profile: DataProfile) -> CollaborativeConfig:
        """`auto`, with a ridge of twice the events of an item and a half-life of twice the events of a user.

        The constants fit MovieLens and sparse data alike (docs/evaluation.md). Large catalogues whose users repeat
        items keep the file's values, which were chosen on such data, because a choice has not been measured there.
        """
        given = CollaborativeConfig.model_validate(family_values(cls.family))
        if profile.repeat_share >= MIN_REPEAT_SHARE and profile.n_items > given.closed_form_items:
            return given
        values = {
            "method": "auto",
            "regularisation": preferred_number(RIDGE_PER_EVENT * max(1, profile.events_per_item), 10, 1_000),
            "half_life": preferred_number(2 * max(1, profile.events_per_user), 10, 200),
        }
        return CollaborativeConfig.model_validate({**family_values(cls.family), **values})

    def fit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        config = self.config
        learner = Learner(dataset, config, options)
        matrix = learner.matrix
        methods = self._methods(dataset, options)
        self.terms = tuple(term for method in methods for term in learner.terms(method))
        self.base = prior_scores(dataset, config.prior * sum(method.factor for method in methods))
        self.vectors = item_vectors(matrix, config.dimensions, options.seed)
        return self

    def refit(self, dataset: Dataset, options: RuntimeOptions) -> Self:
        """A fit with what this model has chosen, so that the figures of one model speak for the next."""
        model = type(self)(self.config)
        model.choice = self.choice
        return model.fit(dataset, options)

    @classmethod
    def workload(
        cls,
        sizes: DataSizes,
        config: CollaborativeConfig,
        refit: bool = False,
        base_models: Mapping[str, Workload] | None = None,
    ) -> Workload:
        return collaborative_workload(sizes, config, refit)

    def record(self) -> dict[str, Any]:
        if self.choice is None:
            return {}
        return {
            "method": self.choice.label,
            "held_out_queries": self.choice.queries,
            "held_out_ndcg": max(self.choice.ndcg.values()),
            **{f"held_out_ndcg_{name}": figure for name, figure in self.choice.best_of_each_name().items()},
        }

    def save(self, path: Path) -> None:
        super().save(path)
        if self.choice is not None:
            (path / CHOICE_FILE).write_text(self.choice.model_dump_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        model = super().load(path)
        if (path / CHOICE_FILE).exists():
            model.choice = MethodChoice.model_validate_json((path / CHOICE_FILE).read_text())
        return model

    def _methods(self, dataset: Dataset, options: RuntimeOptions) -> tuple[Method, ...]:
        """What the model is the sum of."""
        config = self.config
        if config.method == "auto":
            self.choice = self.choice or choose_methods(dataset, config, options, self._candidates(dataset, options))
            if self.choice is not None:
                return self.choice.methods
        method = named_method(config, dataset.n_items)
        if method.name != "transitions" and dataset.repeat_share >= MIN_REPEAT_SHARE:
            method = method.model_copy(update={"repeat_weight": config.repeat_weight})
        return (method,)

    def _candidates(self, dataset: Dataset, options: RuntimeOptions) -> list[Method]:
        seconds = CHOICE_SHARE * options.max_seconds
        return affordable(candidates_of(self.config, dataset.n_items), DataSizes.of(dataset), self.config, seconds)
