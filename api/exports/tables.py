"""Exports that administrators ask for: the API creates the jobs, the pipeline writes the files."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, Index, text
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class ExportJob(Table, table=True):
    """A file with the tenant's rows of one table. It goes with the administrator who asked for it.

    `started_at` is null where no process works on the job, and where a user was erased since one began.
    """

    __tablename__ = "export_jobs"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
        CheckConstraint("kind IN ('interactions', 'impressions', 'recommendations', 'seen_impressions')", name="kind"),
        CheckConstraint("format IN ('parquet', 'csv')", name="format"),
        CheckConstraint("status IN ('processing', 'completed', 'failed', 'expired')", name="status"),
        Index("export_jobs_processing_idx", "created_at", postgresql_where=text("status = 'processing'")),
        Index("export_jobs_newest_idx", "tenant_id", text("created_at DESC")),
        Index("export_jobs_user_idx", "tenant_id", "user_id", "created_at"),
    )

    tenant_id: str = text_column(primary_key=True)
    id: UUID = Field(primary_key=True)
    user_id: str = text_column()  # who asked
    kind: str = text_column()
    format: str = text_column()
    since: datetime | None = timestamptz(nullable=True)
    until: datetime | None = timestamptz(nullable=True)
    status: str = text_column(sa_column_kwargs={"server_default": "processing"}, default="processing")
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    rows: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    bytes: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    error: str | None = text_column(default=None, nullable=True)
    created_at: datetime = timestamptz(default_now=True)
    started_at: datetime | None = timestamptz(nullable=True)
    finished_at: datetime | None = timestamptz(nullable=True)
    expires_at: datetime | None = timestamptz(nullable=True)
