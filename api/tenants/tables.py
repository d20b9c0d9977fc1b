"""Tenants. A deleted tenant keeps its row, so that its id is never used again."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Column
from sqlalchemy.types import DOUBLE_PRECISION
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class Tenant(Table, table=True):
    __tablename__ = "tenants"
    __table_args__ = (
        CheckConstraint("id ~ '^[a-z][a-z0-9-]{1,31}$'", name="id"),
        CheckConstraint("exclude_seen IN ('none', 'bought', 'all')", name="exclude_seen"),
        CheckConstraint("holdout_share BETWEEN 0 AND 1", name="holdout_share"),
    )

    id: str = text_column(primary_key=True)
    plan: str = text_column(sa_column_kwargs={"server_default": "free"}, default="free")
    exclude_seen: str = text_column(sa_column_kwargs={"server_default": "all"}, default="all")
    # Of the users, how many get popular items in place of a model's, so that the two can be compared.
    holdout_share: float = Field(default=0.0, sa_column=Column(DOUBLE_PRECISION, nullable=False, server_default="0"))
    # Raised by each transaction that changes the tenant's scenarios, so that processes know when to read them again.
    scenario_edition: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    created_at: datetime = timestamptz(default_now=True)
    deleted_at: datetime | None = timestamptz(nullable=True)
