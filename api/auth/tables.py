"""Failed logins."""

from datetime import datetime

from sqlalchemy import Column, Index, LargeBinary
from sqlmodel import Field

from api.database.base import Table, timestamptz


class FailedLogin(Table, table=True):
    """Wrong passwords for one email address, whether or not a user has it. Only a hash of the address is stored."""

    __tablename__ = "failed_logins"
    __table_args__ = (Index("failed_logins_last_failed_at_idx", "last_failed_at"),)

    account: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    failures: int
    last_failed_at: datetime = timestamptz()
    delayed_until: datetime | None = timestamptz(nullable=True)
