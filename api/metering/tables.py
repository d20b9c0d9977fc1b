"""Usage of tenants. A unit is a metered request; a cycle is a month."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class UsageCycle(Table, table=True):
    """One tenant's units of one billing cycle, and the terms they were used under."""

    __tablename__ = "usage_cycles"
    __table_args__ = (
        CheckConstraint("units >= 0", name="units"),
        CheckConstraint("cycle_start < cycle_end", name="cycle"),
        Index("usage_cycles_end_idx", "cycle_end"),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    cycle_start: datetime = timestamptz(primary_key=True)
    cycle_end: datetime = timestamptz()
    units: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    # The highest limit that was in force in the cycle. Null means no limit.
    request_limit: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    # The plan that was in force last; its price counts.
    plan_id: str = text_column()
    last_request_at: datetime | None = timestamptz(nullable=True)


class UsageFlush(Table, table=True):
    """The last sequence number that an API process has written. A batch that is sent again is then ignored."""

    __tablename__ = "usage_flushes"
    __table_args__ = (Index("usage_flushes_flushed_at_idx", "flushed_at"),)

    process: UUID = Field(primary_key=True)
    sequence: int = Field(sa_column=Column(BigInteger, nullable=False))
    flushed_at: datetime = timestamptz(default_now=True)
