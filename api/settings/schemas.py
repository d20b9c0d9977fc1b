"""Settings of a tenant's pipeline in responses. Requests have the form of `configs.tenant_pipeline`."""

from pydantic import Field

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
