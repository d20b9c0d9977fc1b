"""Segments of users and items, and the users who are in them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class SegmentRow(Table, table=True):
    """What makes a user or an item a member, and how many there were when the pipeline last looked."""

    __tablename__ = "segments"
    __table_args__ = (CheckConstraint("kind IN ('users', 'items')", name="kind"),)

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(default=None, primary_key=True, sa_column_kwargs={"server_default": text("gen_random_uuid()")})
    name: str = text_column()
    kind: str = text_column()
    # On the metadata of items, as it was sent.
    filter: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
    # {"interactionTypes", "atLeast", "days"}
    behaviour: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
    size: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    measured_at: datetime | None = timestamptz(nullable=True)
    created_at: datetime = timestamptz(default_now=True)
    updated_at: datetime = timestamptz(default_now=True)


class SegmentUser(Table, table=True):
    """A user who is in a segment. The row goes with the user's, and with the segment's."""

    __tablename__ = "segment_users"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "segment_id"],
            ["segments.tenant_id", "segments.id"],
            name="segment_users_segment_fkey",
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["tenant_id", "user_id"],
            ["users.tenant_id", "users.id"],
            name="segment_users_user_fkey",
            ondelete="CASCADE",
        ),
        Index("segment_users_user_idx", "tenant_id", "user_id"),
    )

    tenant_id: str = text_column(primary_key=True)
    segment_id: UUID = Field(primary_key=True)
    user_id: str = text_column(primary_key=True)
