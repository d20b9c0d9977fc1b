"""Impressions: one row per answer to `recommend`, written in the background."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, Index, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import REAL
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz, xid_column


class Impression(Table, table=True):
    """The items of one answer, best first, with the release and the family that ranked them.

    `degraded` says why the fallback answered, where it did.
    """

    __tablename__ = "impressions"
    __table_args__ = (
        Index("impressions_created_at_idx", "tenant_id", text("created_at DESC")),
        Index("impressions_user_idx", "tenant_id", "user_id", text("created_at DESC")),
        Index("impressions_xid_idx", "tenant_id", "xid"),
    )

    tenant_id: str = text_column(primary_key=True)
    recommendation_id: UUID = Field(primary_key=True)
    user_id: str = text_column()
    algorithm: str = text_column()
    release: str | None = text_column(default=None, nullable=True)
    degraded: str | None = text_column(default=None, nullable=True)
    item_ids: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    scores: list[float] = Field(sa_column=Column(ARRAY(REAL), nullable=False))
    created_at: datetime = timestamptz(default_now=True)
    xid: int | None = xid_column()
