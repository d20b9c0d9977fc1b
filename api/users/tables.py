"""Users of a tenant: portal users have a password; end users have an id that a backend chose."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, flag, text_column, timestamptz, xid_column

PORTAL = "password_hash IS NOT NULL OR role_issued_at IS NOT NULL"
"""SQL condition on `users`: the user has a password, or came with a token of an external issuer."""


class User(Table, table=True):
    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('user', 'admin')", name="role"),
        # A login names no tenant, so the addresses of users with a password are unique across all tenants.
        Index(
            "users_login_email_key",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("password_hash IS NOT NULL"),
        ),
        Index("users_xid_idx", "tenant_id", "xid"),
        # Portal users without an interaction do not count towards a plan's user limit; the quota subtracts them.
        Index("users_portal_idx", "tenant_id", postgresql_where=text(PORTAL)),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: str = text_column(primary_key=True)
    email: str | None = text_column(default=None, nullable=True)
    name: str | None = text_column(default=None, nullable=True)
    # When somebody confirmed the address; an administrator who sets it vouches for it.
    email_confirmed_at: datetime | None = timestamptz(nullable=True)
    password_hash: str | None = text_column(default=None, nullable=True)
    role: str = text_column(sa_column_kwargs={"server_default": "user"}, default="user")
    is_active: bool = flag()
    created_at: datetime = timestamptz(default_now=True)
    last_active_at: datetime | None = timestamptz(nullable=True)
    updated_at: datetime = timestamptz(default_now=True)
    last_login_at: datetime | None = timestamptz(nullable=True)
    user_metadata: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSONB, nullable=False, server_default="{}")
    )
    # Users of external issuers get the role of their newest token, which was issued at `role_issued_at`. Once an
    # administrator sets a role here, the role is pinned and tokens no longer change it.
    role_pinned: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=false()))
    role_issued_at: datetime | None = timestamptz(nullable=True)
    xid: int | None = xid_column()
    # How often the user's interactions changed: see `UserHistory`. 0: the user has never had any.
    history_version: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
