"""Scenarios and the versions of their recipes."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, Integer, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class ScenarioRow(Table, table=True):
    """A named recipe. A transaction that writes scenarios first raises `tenants.scenario_edition`, whose row lock makes
    the tenant's other writers of scenarios wait until it ends.

    Who changed it is in the audit trail, which forgets erased users.
    """

    __tablename__ = "scenarios"
    __table_args__ = (
        CheckConstraint("status IN ('draft', 'live', 'archived')", name="status"),
        CheckConstraint("(status = 'live') = (live_version IS NOT NULL)", name="live_version"),
        Index("scenarios_created_at_idx", "tenant_id", text("created_at DESC"), "id"),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: str = text_column(primary_key=True)
    name: str = text_column()
    status: str = text_column()
    version: int = Field(sa_column=Column(Integer, nullable=False))  # the newest
    live_version: int | None = Field(default=None, sa_column=Column(Integer, nullable=True))  # what requests get
    created_at: datetime = timestamptz(default_now=True)
    updated_at: datetime = timestamptz(default_now=True)


class ScenarioVersionRow(Table, table=True):
    """One version of a scenario's recipe. It never changes."""

    __tablename__ = "scenario_versions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "scenario_id"], ["scenarios.tenant_id", "scenarios.id"], ondelete="CASCADE"),
    )

    tenant_id: str = text_column(primary_key=True)
    scenario_id: str = text_column(primary_key=True)
    version: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    recipe: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))  # a `Recipe` in camelCase
    created_at: datetime = timestamptz(default_now=True)
