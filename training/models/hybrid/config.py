"""Hyper-parameters of the hybrid family."""

from pydantic import AliasChoices, Field

from training.models.contract import ModelConfig
from training.models.hybrid.learning import RankerConfig


class HybridConfig(ModelConfig):
    """How the ranker's queries are made, and how large a share of the lists cold items get."""

    window: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="share of the newest events that queries are made of, where no time is given",
    )
    queries_per_user: int = Field(
        default=1,
        ge=1,
        validation_alias=AliasChoices("queries_per_user", "questions_per_user"),
        description="query times per user, evenly spaced over the user's events of the window",
    )
    max_queries: int = Field(default=3_000, ge=1, validation_alias=AliasChoices("max_queries", "max_questions"))
    mask_seen: bool | None = Field(
        default=None,
        description="leave a user's earlier items out of the lists and targets; null: as the lists of these data do",
    )
    popularity_half_life_days: float = Field(default=30.0, gt=0)
    ranker: RankerConfig = RankerConfig()
    cold_item_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        validation_alias=AliasChoices("cold_item_share", "newcomers"),
        description="largest share of the places of lists that items without an event get",
    )
    cold_item_cost: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        validation_alias=AliasChoices("cold_item_cost", "newcomer_cost"),
        description="share of NDCG that cold items may cost; their share of the lists is reduced until it suffices",
    )
    evidence_users: int = Field(default=100, ge=1, description="histories on which evidence is checked by occlusion")
    required_agreement: float = Field(
        default=0.95, ge=0, le=1, description="share of the checked evidence that occlusion must confirm"
    )
    scale_users: int = Field(default=512, ge=1, description="histories on which the scales of base models are measured")
