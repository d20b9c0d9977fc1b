"""Settings of a tenant in requests and responses. Those of its pipeline have the form of `configs.tenant_pipeline`."""

from typing import Annotated

from pydantic import ConfigDict, Field

from api.http.schemas import Schema
from configs.tenant_pipeline import (
    AlertChannels,
    SettingsGroup,
    TenantDrift,
    TenantPromotion,
    TenantSearch,
    TenantTraining,
)


class AlertsOut(AlertChannels):
    """The channels of alerts. The secret of the webhook is not shown, except where this request made it."""

    webhook_secret_set: bool = Field(description="Whether there is a secret that signs the webhook's bodies")
    webhook_secret: str | None = Field(
        default=None, description="The secret that this request made; null in every other response", examples=[None]
    )


class PipelineSettingsOut(SettingsGroup):
    """All settings in force, those that nobody has set included."""

    search: TenantSearch
    training: TenantTraining
    promotion: TenantPromotion
    drift: TenantDrift
    alerts: AlertsOut


class RecommendationSettings(Schema):
    """How a tenant's users are recommended to."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"holdoutShare": 0.05}]})

    holdout_share: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.0,
        description="The share of users who get popular items in place of a model's, so that the two can be compared. "
        "Who they are depends on their ids alone",
    )
