"""Tenants. A deleted tenant keeps its row, so that its id is never used again."""

from datetime import datetime

from sqlalchemy import CheckConstraint

from api.database.base import Table, text_column, timestamptz


class Tenant(Table, table=True):
    __tablename__ = "tenants"
    __table_args__ = (
        CheckConstraint("id ~ '^[a-z][a-z0-9-]{1,31}$'", name="id"),
        CheckConstraint("exclude_seen IN ('none', 'bought', 'all')", name="exclude_seen"),
    )

    id: str = text_column(primary_key=True)
    plan: str = text_column(sa_column_kwargs={"server_default": "free"}, default="free")
    exclude_seen: str = text_column(sa_column_kwargs={"server_default": "all"}, default="all")
    created_at: datetime = timestamptz(default_now=True)
    deleted_at: datetime | None = timestamptz(nullable=True)
