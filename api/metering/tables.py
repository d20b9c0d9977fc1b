"""Usage of tenants, and the plans that they held. A unit is a metered request; a cycle is a month."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, text
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class StoredPlanPeriod(Table, table=True):
    """A plan that a tenant holds from `started_at` until its next period starts.

    Without a row, the tenant holds the plan that it was created with. A row may lie ahead: for the end of the grace
    period of a payment that is past due.
    """

    __tablename__ = "plan_periods"

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    started_at: datetime = timestamptz(primary_key=True)
    plan_id: str = text_column()
    # The subscription's months are counted from here. Null: calendar months in UTC.
    anchor: datetime | None = timestamptz(nullable=True)


class UsageCycle(Table, table=True):
    """One tenant's units of one billing cycle. The terms they were used under follow from the plan periods."""

    __tablename__ = "usage_cycles"
    __table_args__ = (
        CheckConstraint("units >= 0", name="units"),
        CheckConstraint("least_cap_cents >= 0", name="least_cap_cents"),
        CheckConstraint("cycle_start < cycle_end", name="cycle"),
        Index("usage_cycles_end_idx", "cycle_end"),
        Index("usage_cycles_unsettled_idx", "cycle_end", postgresql_where=text("settled_at IS NULL")),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    cycle_start: datetime = timestamptz(primary_key=True)
    cycle_end: datetime = timestamptz()
    units: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    # That of the plan periods that the month is made of.
    anchor: datetime | None = timestamptz(nullable=True)
    # What the units used before a change of plan come to. The cap of another plan does not go below it.
    least_cap_cents: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    # When it was decided what the month costs; null until it is over.
    settled_at: datetime | None = timestamptz(nullable=True)
    last_request_at: datetime | None = timestamptz(nullable=True)


class UsageFlush(Table, table=True):
    """The last sequence number that an API process has written. A batch that is sent again is then ignored."""

    __tablename__ = "usage_flushes"
    __table_args__ = (Index("usage_flushes_flushed_at_idx", "flushed_at"),)

    process: UUID = Field(primary_key=True)
    sequence: int = Field(sa_column=Column(BigInteger, nullable=False))
    flushed_at: datetime = timestamptz(default_now=True)
