"""Users of a tenant: portal users, who have a password, and end users, whose ids a backend sends."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, text

from api.database.base import Table, flag, moment, text_column


class User(Table, table=True):
    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('user', 'admin')", name="role"),
        # A login names no tenant, so the address of whoever can log in is unique across all of them.
        Index(
            "users_login_email_key",
            text("lower(email)"),
            unique=True,
            postgresql_where=text("password_hash IS NOT NULL"),
        ),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: str = text_column(primary_key=True)
    email: str | None = text_column(default=None, nullable=True)
    name: str | None = text_column(default=None, nullable=True)
    password_hash: str | None = text_column(default=None, nullable=True)
    role: str = text_column(sa_column_kwargs={"server_default": "user"}, default="user")
    is_active: bool = flag()
    created_at: datetime = moment(default_now=True)
    last_active_at: datetime | None = moment(nullable=True)
