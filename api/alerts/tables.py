"""Alerts on their way out. The pipeline adds them, the API delivers them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class AlertRow(Table, table=True):
    """One alert. It names no user.

    A claim moves `next_attempt_at` into the future: that is the lease of the process that delivers, and the pause
    before the next attempt where it does not succeed.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        CheckConstraint("event IN ('drift', 'promotion', 'run_failed', 'rollback')", name="event"),
        Index("alerts_due_idx", "next_attempt_at", postgresql_where=text("finished_at IS NULL")),
        Index("alerts_newest_idx", "tenant_id", text("created_at DESC")),
        Index("alerts_expiry_idx", "created_at"),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True, sa_column_kwargs={"server_default": text("gen_random_uuid()")})
    created_at: datetime = Field(
        default=None,
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    )
    event: str = text_column()
    subject: str = text_column()
    facts: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    next_attempt_at: datetime = timestamptz(default_now=True)
    webhook_at: datetime | None = timestamptz(nullable=True)  # when the webhook took it
    mail_at: datetime | None = timestamptz(nullable=True)  # when the mail server took it
    finished_at: datetime | None = timestamptz(nullable=True)  # delivered, or given up
    error: str | None = text_column(default=None, nullable=True)  # of the last attempt that failed
