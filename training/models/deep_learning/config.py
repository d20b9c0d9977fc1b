"""Hyper-parameters of the sequential transformer."""

from typing import Literal

from pydantic import AliasChoices, Field

from training.models.content_based.encoder import EncoderConfig
from training.models.contract import ModelConfig


class DeepLearningConfig(ModelConfig):
    """Network, loss and schedule. Time and device are runtime options, not part of the model."""

    dimensions: int = Field(default=64, ge=4, description="width of item, event and user vectors")
    blocks: int = Field(default=2, ge=1, description="transformer blocks")
    heads: int = Field(default=2, ge=1, description="attention heads; must divide `dimensions`")
    max_length: int = Field(default=100, ge=1, description="newest events of a history that the network reads")
    dropout: float = Field(default=0.15, ge=0, lt=1)
    id_dropout: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of items whose id is hidden in a step, so that content alone learns to score cold items",
    )
    popularity_half_lives: tuple[float, ...] = Field(
        default=(14.0, 90.0),
        validation_alias=AliasChoices("popularity_half_lives", "trend_half_lives"),
        description="half-lives in days of the recent popularity that is added to the logits; none: it is not added",
    )
    repeat_half_lives: tuple[float, ...] = Field(
        default=(14.0, 90.0),
        description="half-lives in days of the counts of a user's own items; used only where users repeat items",
    )
    horizon_days: float | None = Field(
        default=None,
        gt=0,
        description="the targets of a state are the events within this many days; null: the next event only",
    )
    target_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        validation_alias=AliasChoices("target_share", "asked"),
        description="share of the events of a sequence that are targets of the loss in a step, drawn anew each time",
    )
    mask_history: bool | None = Field(
        default=None,
        validation_alias=AliasChoices("mask_history", "mask_past"),
        description="leave the earlier items of a sequence out of the softmax; null: where users repeat no item",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="of matrix products in training; auto: bfloat16, about twice as fast, where the hardware has it",
    )
    weight_averaging: float = Field(
        default=0.99,
        ge=0,
        lt=1,
        validation_alias=AliasChoices("weight_averaging", "averaging"),
        description="decay per step of the exponential moving average of the weights (EMA)",
    )
    candidates: int = Field(
        default=8_192,
        ge=2,
        description="items of a softmax; a larger catalogue is sampled, and the logits get the logQ correction",
    )
    batch_size: int = Field(default=64, ge=1, description="sequences per step")
    learning_rate: float = Field(default=2e-3, gt=0, description="peak; warm-up, then cosine decay")
    weight_decay: float = Field(
        default=1.0, ge=0, description="of matrices (AdamW); each step decays them by this times the learning rate"
    )
    epochs: int = Field(default=20, ge=1, description="largest number of epochs")
    patience: int = Field(default=5, ge=1, description="the fit ends after this many epochs without a better NDCG")
    refit_epochs: int = Field(default=4, ge=0, description="epochs over all events after the validated fit")
    refit_learning_rate: float = Field(
        default=6e-4, gt=0, description="lower, since the refit continues a trained model"
    )
    content: EncoderConfig = EncoderConfig()
