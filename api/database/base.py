"""What every table shares: one metadata with named constraints, and the column types of PostgreSQL."""

from typing import Any

from sqlalchemy import Boolean, Column, DateTime, MetaData, Text, func, text, true
from sqlalchemy.types import UserDefinedType
from sqlmodel import Field, SQLModel

ONE_ROW_PER_TENANT = "one_row_per_tenant"
"""Key of a table's `info`: true where a new tenant gets its row, made of the columns' defaults, in this table."""


class Table(SQLModel):
    """Base of the table classes. Names of constraints follow PostgreSQL's own, so that migrations can spell them."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )


class Xid8(UserDefinedType[int]):
    """A transaction's 64-bit id, which never wraps around; psycopg reads it as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


def timestamptz(*, nullable: bool = False, default_now: bool = False, primary_key: bool = False) -> Any:
    """A column of type timestamptz; the database's clock where `default_now`."""
    return Field(
        default=None,
        sa_column=Column(
            DateTime(timezone=True),
            nullable=nullable,
            primary_key=primary_key,
            server_default=func.now() if default_now else None,
        ),
    )


def xid_column() -> Any:
    """The transaction that wrote the row.

    Who counts or exports takes the rows of transactions that have ended, and passes over no row whose transaction
    commits late, as a sequence or a clock would.
    """
    return Field(default=None, sa_column=Column(Xid8, nullable=False, server_default=text("pg_current_xact_id()")))


def text_column(**options: Any) -> Any:
    """A column of type text, which in PostgreSQL costs nothing over a bounded one."""
    return Field(sa_type=Text, **options)


def flag() -> Any:
    """A boolean column that is true unless told otherwise."""
    return Field(default=True, sa_column=Column(Boolean, nullable=False, server_default=true()))
