"""Generation jobs: the API creates them, the pipeline runs them and records their progress."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, text
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz

FAMILIES = "algorithm ~ '^[a-z][a-z0-9-]{0,31}$'"
"""Any name that a family may have, since a plug-in adds one without a migration."""
SEGMENTS = "user_segment IN ('all', 'active', 'new')"


class GenerationJob(Table, table=True):
    """A job: `count` recommendations by one family for each user of a segment. The row holds no user's id."""

    __tablename__ = "generation_jobs"
    __table_args__ = (
        CheckConstraint(FAMILIES, name="algorithm"),
        CheckConstraint(SEGMENTS, name="user_segment"),
        CheckConstraint("status IN ('processing', 'completed', 'failed')", name="status"),
        Index("generation_jobs_processing_idx", "created_at", postgresql_where=text("status = 'processing'")),
        Index("generation_jobs_finished_idx", "tenant_id", text("finished_at DESC")),
        Index(
            "generation_jobs_unmetered_idx",
            "tenant_id",
            postgresql_where=text("users_metered < LEAST(users_scored, users_done)"),
        ),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True)
    algorithm: str = text_column()
    user_segment: str = text_column()
    count: int = Field()
    status: str = text_column(sa_column_kwargs={"server_default": "processing"}, default="processing")
    # An estimate when the job is created, counted when it starts.
    users_total: int = Field(sa_column=Column(BigInteger, nullable=False))
    users_done: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    recommendations_written: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    # How many times a user was scored. A user counts twice if the process died between scoring and storing.
    # `users_metered` is the part that has been added to the tenant's usage.
    users_scored: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    users_metered: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    # How many users the tenant's budget allows the job to score from now on, as the API saw it last. Null: no bound.
    users_allowed: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    # How often the job was started since it last made progress. After several such starts it fails; an interrupted job
    # that made progress continues.
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    release: str | None = text_column(default=None, nullable=True)
    error: str | None = text_column(default=None, nullable=True)
    created_at: datetime = timestamptz(default_now=True)
    started_at: datetime | None = timestamptz(nullable=True)
    finished_at: datetime | None = timestamptz(nullable=True)
