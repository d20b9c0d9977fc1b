"""The audit trail: what changed a tenant's security, plan or models, by whom, and from where."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, DateTime, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, text_column


class AuditRow(Table, table=True):
    """One entry. `actor`, and `target` where it is a user, are references of `api.audit.references`."""

    __tablename__ = "audit_entries"
    __table_args__ = (
        CheckConstraint("target_kind IN ('user', 'key', 'tenant', 'model', 'scenario')", name="target_kind"),
        Index("audit_entries_at_idx", "tenant_id", text("at DESC"), "id"),
        Index("audit_entries_actor_idx", "tenant_id", "actor", text("at DESC")),
        Index("audit_entries_target_idx", "tenant_id", "target", text("at DESC")),
        Index("audit_entries_expiry_idx", "at"),
        Index("audit_entries_key_idx", "tenant_id", postgresql_where=text("target_kind = 'key'")),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True, sa_column_kwargs={"server_default": text("gen_random_uuid()")})
    # Entries of one transaction are told apart, so that they are listed in their order.
    at: datetime = Field(
        default=None,
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
    )
    actor: str = text_column()
    action: str = text_column()
    target_kind: str | None = text_column(default=None, nullable=True)
    target: str | None = text_column(default=None, nullable=True)
    ip: str | None = text_column(default=None, nullable=True)
    detail: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
