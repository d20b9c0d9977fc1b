"""Counts and measurements for a tenant's statistics. The pipeline writes them, the API reads them."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, text
from sqlalchemy.types import DOUBLE_PRECISION
from sqlmodel import Field

from api.database.base import Table, Xid8, text_column, timestamptz


def _count() -> Any:
    return Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))


def _tenant() -> Any:
    return text_column(primary_key=True, foreign_key="tenants.id")


class AnalyticsTotals(Table, table=True):
    """A tenant's totals over the rows that transactions before `next_xid` wrote. The API counts the later rows itself.

    The pipeline holds this row's lock while it counts, and so do the triggers that subtract deleted rows.
    """

    __tablename__ = "analytics_totals"

    tenant_id: str = _tenant()
    next_xid: int = Field(default=0, sa_column=Column(Xid8, nullable=False, server_default=text("'0'::xid8")))
    users: int = _count()
    interactions: int = _count()
    shown: int = _count()


class ExpiredCounts(Table, table=True):
    """What totals count of rows that were deleted because of their age. A count made anew leaves it as it is."""

    __tablename__ = "expired_counts"

    tenant_id: str = _tenant()
    shown: int = _count()
    generated: int = _count()
    interactions: int = _count()  # in `archived_interactions`


class AnalyticsDay(Table, table=True):
    """The same counts for one day in UTC: the event's day for interactions, the answer's day for impressions."""

    __tablename__ = "analytics_days"

    tenant_id: str = _tenant()
    day: date = Field(primary_key=True)
    active_users: int = _count()
    shown: int = _count()


class ActiveUser(Table, table=True):
    """A user who is counted in a day's `active_users`. The row is kept as long as the day can be requested."""

    __tablename__ = "analytics_active_users"

    tenant_id: str = _tenant()
    day: date = Field(primary_key=True)
    user_id: str = text_column(primary_key=True)


class Attribution(Table, table=True):
    """An interaction that followed from an answer. It is deleted with the interaction."""

    __tablename__ = "attributions"
    __table_args__ = (Index("attributions_answer_idx", "tenant_id", "recommendation_id"),)

    tenant_id: str = _tenant()
    interaction_id: UUID = Field(primary_key=True)
    recommendation_id: UUID = Field()


class ReleaseModel(Table, table=True):
    """A champion in a release, with its held-out AUC; null where it could not be measured."""

    __tablename__ = "release_models"
    __table_args__ = (CheckConstraint("auc BETWEEN 0 AND 1", name="auc"),)

    tenant_id: str = _tenant()
    release: str = text_column(primary_key=True)
    family: str = text_column(primary_key=True)
    version: str = text_column()
    auc: float | None = Field(default=None, sa_column=Column(DOUBLE_PRECISION, nullable=True))
    published_at: datetime = timestamptz(default_now=True)


class DailyAccuracy(Table, table=True):
    """The AUC of one model on one day's interactions while its release was served."""

    __tablename__ = "daily_accuracy"
    __table_args__ = (CheckConstraint("auc BETWEEN 0 AND 1", name="auc"),)

    tenant_id: str = _tenant()
    day: date = Field(primary_key=True)
    release: str = text_column(primary_key=True)
    family: str = text_column(primary_key=True)
    auc: float = Field(sa_column=Column(DOUBLE_PRECISION, nullable=False))
    users: int = Field(sa_column=Column(BigInteger, nullable=False))
    measured_at: datetime = timestamptz(default_now=True)
