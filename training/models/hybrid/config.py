"""What of the hybrid family can be configured."""

from pydantic import Field

from training.models.contract import ModelConfig
from training.models.hybrid.learning import RankerConfig


class HybridConfig(ModelConfig):
    window: float = Field(
        default=0.1, gt=0, lt=1, description="share of the newest events asked about where no moment is given"
    )
    questions_per_user: int = Field(default=1, ge=1, description="moments asked about, evenly spaced")
    max_questions: int = Field(default=3_000, ge=1)
    mask_seen: bool | None = Field(
        default=None, description="ask only for items new to the user; null: where people seldom choose one twice"
    )
    popularity_half_life_days: float = Field(default=30.0, gt=0)
    ranker: RankerConfig = RankerConfig()
    newcomers: float = Field(
        default=0.1, ge=0, lt=1, description="largest share of the places of lists for items without an event"
    )
    newcomer_cost: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="share of NDCG that may be given up for them; less room where it is not enough",
    )
    evidence_users: int = Field(default=100, ge=1, description="histories that evidence is checked on")
    required_agreement: float = Field(
        default=0.95, ge=0, le=1, description="share of checked evidence that must be true for any to be given"
    )
    scale_users: int = Field(default=512, ge=1, description="histories that scales are measured on")
