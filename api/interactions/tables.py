"""Interactions: what users did with items. Recent ones have a row each, archived ones share rows."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import REAL, TypeEngine
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz, xid_column


class Interaction(Table, table=True):
    """One interaction. It has no foreign keys, since each insert would lock the tenant's row and others would queue."""

    __tablename__ = "interactions"
    __table_args__ = (
        CheckConstraint("interaction_type IN ('view', 'click', 'like', 'purchase')", name="interaction_type"),
        CheckConstraint("value BETWEEN 0 AND 1", name="value"),
        # The newest events of a user are read from this index alone.
        Index(
            "interactions_user_idx",
            "tenant_id",
            "user_id",
            text("occurred_at DESC"),
            postgresql_include=["item_id", "interaction_type", "value"],
        ),
        Index("interactions_xid_idx", "tenant_id", "xid"),
        Index(
            "interactions_recent_idx",
            "tenant_id",
            text("occurred_at DESC"),
            postgresql_include=["item_id", "interaction_type", "value"],
        ),
    )

    tenant_id: str = text_column(primary_key=True)
    id: UUID = Field(primary_key=True)
    user_id: str = text_column()
    item_id: str = text_column()
    interaction_type: str = text_column()
    value: float | None = Field(default=None, sa_column=Column(REAL, nullable=True))
    occurred_at: datetime = timestamptz()
    ingested_at: datetime = timestamptz(default_now=True)
    recommendation_id: UUID | None = Field(default=None)
    xid: int | None = xid_column()


def _array(kind: TypeEngine[Any]) -> Any:
    return Field(sa_column=Column(ARRAY(kind), nullable=False))


class ArchivedInteractions(Table, table=True):
    """A user's old interactions of a month of `occurred_at` (UTC), which the pipeline moved here.

    The arrays have an element for each interaction. The view `all_interactions` has a row for each interaction of this
    table and of `interactions`, for readers to whom its age does not matter.
    """

    __tablename__ = "archived_interactions"

    tenant_id: str = text_column(primary_key=True)
    user_id: str = text_column(primary_key=True)
    month: date = Field(primary_key=True)  # its first day
    ids: list[UUID] = _array(Uuid())
    item_ids: list[str] = _array(Text())
    interaction_types: list[str] = _array(Text())
    event_values: list[float | None] = _array(REAL())
    occurred_at: list[datetime] = _array(DateTime(timezone=True))
    ingested_at: list[datetime] = _array(DateTime(timezone=True))
    recommendation_ids: list[UUID | None] = _array(Uuid())
