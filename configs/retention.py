"""How long rows of the database, runs and models are kept."""

from pydantic import Field

from configs.settings import Settings

LONGEST_PERIOD_DAYS = 100
"""More than the 90 days that figures can be asked for, so that every figure is complete."""


class RetentionSettings(Settings):
    """How long rows of the database are kept, and how many runs and versions of models."""

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
    export_job_days: int = Field(
        default=30,
        alias="RETENTION_EXPORT_JOB_DAYS",
        ge=8,
        description="of exports that administrators asked for, since they ended; the files go with their links",
    )
    interaction_days: int | None = Field(
        default=None,
        alias="RETENTION_INTERACTION_DAYS",
        ge=LONGEST_PERIOD_DAYS,
        description="of interactions, before they are moved to the archive; None: they are not moved",
    )
    runs: int = Field(
        default=100, alias="RETENTION_RUNS", ge=25, description="newest runs in Dagster, of each job and tenant"
    )
    model_versions: int = Field(
        default=20,
        alias="RETENTION_MODEL_VERSIONS",
        ge=10,
        description="newest registered versions in MLflow, of each family and tenant, beside those in use",
    )
    rollbacks: int = Field(
        default=20,
        alias="RETENTION_ROLLBACKS",
        ge=1,
        description="rollbacks in a row whose versions stay in MLflow, of each family and tenant",
    )
    mlflow_deleted_days: int = Field(
        default=7,
        alias="RETENTION_MLFLOW_DELETED_DAYS",
        ge=0,
        description="after which what was deleted in MLflow, also by a person, is removed from its database",
    )
