"""Hyper-parameters of the content-based family, and which of its two models they ask for."""

from pydantic import AliasChoices, Field

from training.models.content_based.encoder import EncoderConfig
from training.models.content_based.labels import LabelConfig
from training.models.contract import ModelConfig
from training.models.linear import LinearConfig


class LabelMixtureConfig(ModelConfig):
    """How the label mixture weighs labels, and how large a share of the lists cold items get."""

    labels: LabelConfig = LabelConfig()
    rate_half_life_days: float = Field(
        default=14.0, gt=0, description="age at which an event counts half in an item's recent rate"
    )
    horizon_days: float = Field(default=30.0, gt=0, description="how far ahead events are expected")
    cold_item_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        validation_alias=AliasChoices("cold_item_share", "newcomers"),
        description="share of the places of lists that items without an event get",
    )
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of the newest events that the weights of labels are learned from"
    )
    max_users: int = Field(default=1_000, ge=1, description="users that the weights of labels are learned from")


class ContentBasedConfig(LinearConfig):
    """Hyper-parameters of the bilinear map, or with `mixture` of the label mixture."""

    encoder: EncoderConfig = EncoderConfig()
    user_regularisation: float = Field(
        default=1_000.0, gt=0, description="ridge on the users' side of the bilinear map"
    )
    item_regularisation: float = Field(default=1.0, gt=0, description="ridge on the items' side of the bilinear map")
    similarity_weight: float = Field(
        default=0.5,
        ge=0,
        validation_alias=AliasChoices("similarity_weight", "likeness"),
        description="weight of the plain cosine of content, relative to the bilinear map; both have unit spread",
    )
    own_weight: float = Field(
        default=1.0, ge=0, le=1, description="weight of the pairs of an item with itself in the bilinear map"
    )
    held_out_users: int = Field(
        default=0,
        ge=0,
        description="largest number of users whose last events choose the four settings of the bilinear map above and "
        "`half_life`; 0: they are as they stand here",
    )
    mixture: LabelMixtureConfig | None = Field(
        default=None,
        description="settings of the label mixture, which also uses recent popularity; null: the bilinear map",
    )
