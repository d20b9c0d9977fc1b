"""How long rows of the database, runs and models are kept."""

from pydantic import Field

from configs.settings import Settings

LONGEST_PERIOD_DAYS = 100
"""More than the 90 days that figures can be asked for, so that every figure is complete."""


class RetentionSettings(Settings):
    """How long what grows is kept: days of rows in the database, which the API deletes, and a number of runs."""

    audit_days: int = Field(
        default=397, alias="RETENTION_AUDIT_DAYS", ge=1, description="of the audit trail; the default is 13 months"
    )
    alert_days: int = Field(
        default=30, alias="RETENTION_ALERT_DAYS", ge=2, description="of alerts; one is delivered for a day at most"
    )
    stripe_event_days: int = Field(
        default=90,
        alias="RETENTION_STRIPE_EVENT_DAYS",
        ge=31,
        description="of webhook events since they were handled; Stripe resends none after a month",
    )
    impression_days: int = Field(
        default=400,
        alias="RETENTION_IMPRESSION_DAYS",
        ge=LONGEST_PERIOD_DAYS,
        description="of answers that were shown, their pages and what was seen of them; totals still count them",
    )
    recommendation_days: int = Field(
        default=400,
        alias="RETENTION_RECOMMENDATION_DAYS",
        ge=LONGEST_PERIOD_DAYS,
        description="of stored recommendations, and of generation jobs since they ended; totals still count them",
    )
    runs: int = Field(
        default=100, alias="RETENTION_RUNS", ge=25, description="newest runs in Dagster, of each job and tenant"
    )
