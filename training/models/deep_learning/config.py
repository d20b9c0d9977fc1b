"""Hyper-parameters of the sequential transformer."""

from typing import Literal

from pydantic import Field

from training.models.content_based.encoder import EncoderConfig
from training.models.contract import ModelConfig


class DeepLearningConfig(ModelConfig):
    """Network, loss and schedule. Time and device are runtime options, not part of the model."""

    dimensions: int = Field(default=64, ge=4, description="width of item, event and user vectors")
    blocks: int = Field(default=2, ge=1, description="transformer blocks")
    heads: int = Field(default=2, ge=1, description="attention heads; must divide `dimensions`")
    max_length: int = Field(default=100, ge=1, description="newest events of a history that are read")
    dropout: float = Field(default=0.15, ge=0, lt=1)
    id_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="share of items per step known by content alone, so that cold ones score"
    )
    trend_half_lives: tuple[float, ...] = Field(
        default=(14.0, 90.0), description="days over which popularity of late is counted; none: it is not looked at"
    )
    repeat_half_lives: tuple[float, ...] = Field(
        default=(14.0, 90.0),
        description="days over which a user's own choices are counted; learned only where people choose items again",
    )
    horizon_days: float | None = Field(
        default=None, gt=0, description="a state is asked for what comes within so many days; null: for the next event"
    )
    asked: float = Field(
        default=1.0, gt=0, le=1, description="share of the events of a sequence that are asked for a step, drawn anew"
    )
    mask_past: bool | None = Field(
        default=None,
        description="leave what a sequence has shown out of the softmax; by default where users choose nothing twice",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of products while it learns; bfloat16 is about twice as fast where native"
    )
    averaging: float = Field(default=0.99, ge=0, lt=1, description="share of the mean of weights that a step keeps")
    candidates: int = Field(
        default=8_192, ge=2, description="softmax over the whole catalogue up to here, over a corrected sample past it"
    )
    batch_size: int = Field(default=64, ge=1, description="sequences per step")
    learning_rate: float = Field(default=2e-3, gt=0, description="peak; warm-up, then cosine decay")
    weight_decay: float = Field(default=1.0, ge=0, description="of matrices; times the learning rate, a step")
    epochs: int = Field(default=20, ge=1, description="at most")
    patience: int = Field(default=5, ge=1, description="epochs without a better validation NDCG before the fit ends")
    refit_epochs: int = Field(default=4, ge=0, description="over all events after the validated fit")
    refit_learning_rate: float = Field(default=6e-4, gt=0, description="lower: it goes on from what was learned")
    content: EncoderConfig = EncoderConfig()
