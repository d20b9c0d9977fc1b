"""Sessions of people who logged in, and the logins that failed."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, Column, ForeignKeyConstraint, Index, Integer, LargeBinary
from sqlmodel import Field

from api.database.base import Table, moment, text_column


class UserSession(Table, table=True):
    """What one login began. Its access tokens name it and are worth nothing without it.

    The refresh token says which generation it is of; only the newest is good, so the row stands for the whole family.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
        Index("sessions_user_idx", "tenant_id", "user_id"),
        Index("sessions_expires_at_idx", "expires_at"),
    )

    id: UUID = Field(primary_key=True)
    tenant_id: str = text_column()
    user_id: str = text_column()
    generation: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    refreshable: bool = Field(sa_column=Column(Boolean, nullable=False))
    created_at: datetime = moment(default_now=True)
    expires_at: datetime = moment()


class FailedLogin(Table, table=True):
    """Wrong passwords for one address, whether or not somebody has it. Of the address there is only a hash."""

    __tablename__ = "failed_logins"
    __table_args__ = (Index("failed_logins_last_failed_at_idx", "last_failed_at"),)

    account: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    failures: int
    last_failed_at: datetime = moment()
    delayed_until: datetime | None = moment(nullable=True)
