"""Impressions, one row per answer to `recommend`, with the pages that follow from them and what was really seen of
them; and built histories, one row per user. Impressions and histories are written in the background.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKeyConstraint, Index, Text, false, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import REAL
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz, xid_column


class Impression(Table, table=True):
    """The items of one answer, best first, with the release and the family that ranked them.

    `degraded` says why the fallback answered, where it did. `scenario` and its version are those that the request
    named. `holdout`: the user was held out, and got popular items for that reason.
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
    scenario: str | None = text_column(default=None, nullable=True)
    scenario_version: int | None = Field(default=None)
    holdout: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=false()))
    milliseconds: float | None = Field(default=None, sa_column=Column(REAL, nullable=True))  # within the API
    xid: int | None = xid_column()


def _of_an_impression() -> ForeignKeyConstraint:
    """The row goes with its impression, and so with the user and the tenant."""
    return ForeignKeyConstraint(
        ["tenant_id", "recommendation_id"],
        ["impressions.tenant_id", "impressions.recommendation_id"],
        ondelete="CASCADE",
    )


class RecommendationPage(Table, table=True):
    """The place of an answer in a sequence of pages, and what was asked for. Deleted when the sequence has ended.

    The first answer of a sequence has a row only where its request has parameters that the impression does not tell:
    see `api/recommendations/pages.py`.
    """

    __tablename__ = "recommendation_pages"
    __table_args__ = (
        _of_an_impression(),
        Index("recommendation_pages_sequence_idx", "tenant_id", "sequence_id", "number", unique=True),
        Index("recommendation_pages_created_at_idx", "created_at"),
    )

    tenant_id: str = text_column(primary_key=True)
    recommendation_id: UUID = Field(primary_key=True)
    sequence_id: UUID  # the first answer's recommendation_id
    number: int  # 0 for the first answer
    request: str | None = text_column(default=None, nullable=True)  # JSON, of the first answer only
    created_at: datetime = timestamptz()


class SeenImpression(Table, table=True):
    """An item of an answer that its user really saw, and at which place of what was shown, from 1."""

    __tablename__ = "seen_impressions"
    __table_args__ = (_of_an_impression(), CheckConstraint("position >= 1", name="position"))

    tenant_id: str = text_column(primary_key=True)
    recommendation_id: UUID = Field(primary_key=True)
    item_id: str = text_column(primary_key=True)
    position: int
    seen_at: datetime = timestamptz(default_now=True)


class UserHistory(Table, table=True):
    """A user's history in the form in which it is sent to the model server, so that a request need not build it.

    It is used while `version` is that of the user's row and `form` that of the reading process. The columns with bytes
    hold MessagePack arrays: see `serving/contracts/histories.py`. The row goes with the user's.
    """

    __tablename__ = "user_histories"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
    )

    tenant_id: str = text_column(primary_key=True)
    user_id: str = text_column(primary_key=True)
    version: int = Field(sa_column=Column(BigInteger, nullable=False))
    form: int  # of the bytes: see `feature_store.online.form_of`
    events: bytes  # oldest first, at most HistorySettings.max_events
    seen: bytes  # ids of the items that the user had, newest first, at most HistorySettings.max_seen
    bought: bytes  # of these the bought ones
