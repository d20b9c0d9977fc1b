"""Recommendation records: single recommendations, generated in bulk or shown live to a user who is logged in."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Index, SmallInteger, text
from sqlalchemy.types import DOUBLE_PRECISION
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class RecommendationRecord(Table, table=True):
    """One item recommended to one user.

    `algorithm` is the family that was requested, or `popularity` where the fallback answered. A generated record has a
    `job_id`. A record that was shown has the `recommendation_id` of its answer instead. The impression of that answer
    counts the same items, so to add up what was shown or generated, take the impressions and the records with a job.
    """

    __tablename__ = "recommendations"
    __table_args__ = (
        # Deleting a user deletes the records, also those that a generation job writes at the same time.
        ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
        Index("recommendations_user_idx", "tenant_id", "user_id", text("created_at DESC"), "rank"),
        Index("recommendations_created_at_idx", "tenant_id", text("created_at DESC"), "user_id", "rank"),
        Index("recommendations_algorithm_idx", "tenant_id", "algorithm", text("created_at DESC"), "user_id", "rank"),
        Index("recommendations_job_idx", "tenant_id", "job_id", "user_id", postgresql_where=text("job_id IS NOT NULL")),
    )

    tenant_id: str = text_column(primary_key=True)
    id: UUID = Field(default=None, primary_key=True, sa_column_kwargs={"server_default": text("gen_random_uuid()")})
    user_id: str = text_column()
    item_id: str = text_column()
    rank: int = Field(sa_column=Column(SmallInteger, nullable=False))  # the position in its list, from 1
    score: float = Field(sa_column=Column(DOUBLE_PRECISION, nullable=False))
    algorithm: str = text_column()
    reason: str = text_column()
    release: str | None = text_column(default=None, nullable=True)
    job_id: UUID | None = Field(default=None)
    recommendation_id: UUID | None = Field(default=None)
    created_at: datetime = timestamptz(default_now=True)
