"""The settings of each tenant's pipeline."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class PipelineSettingsRow(Table, table=True):
    """What a tenant has set; without a row, the defaults of `configs.tenant_pipeline` apply.

    Who set it is in the audit trail, which forgets erased users.
    """

    __tablename__ = "pipeline_settings"

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    # The members that were sent, in camelCase, so that the others follow their defaults. It never holds the secret.
    settings: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    webhook_secret: str | None = text_column(default=None, nullable=True)
    updated_at: datetime = timestamptz(default_now=True)
