"""Failed logins, and the networks that accounts are used from."""

from datetime import datetime

from sqlalchemy import Column, ForeignKeyConstraint, Index, Integer, LargeBinary
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class FailedLogin(Table, table=True):
    """Wrong passwords for one email address, whether or not a user has it. Only a hash of the address is stored."""

    __tablename__ = "failed_logins"
    __table_args__ = (Index("failed_logins_last_failed_at_idx", "last_failed_at"),)

    account: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    failures: int
    last_failed_at: datetime = timestamptz()
    delayed_until: datetime | None = timestamptz(nullable=True)


class LoginNetwork(Table, table=True):
    """A network from which a user logged in, and the wrong passwords that came from it since."""

    __tablename__ = "login_networks"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
        Index("login_networks_last_login_at_idx", "last_login_at"),
    )

    tenant_id: str = text_column(primary_key=True)
    user_id: str = text_column(primary_key=True)
    network: str = text_column(primary_key=True)
    last_login_at: datetime = timestamptz(default_now=True)
    failures: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    last_failed_at: datetime | None = timestamptz(nullable=True)
    delayed_until: datetime | None = timestamptz(nullable=True)
