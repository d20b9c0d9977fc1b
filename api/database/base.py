"""The base of all tables, with one naming rule for constraints, and PostgreSQL's column types as field functions."""

from typing import Any

from sqlalchemy import Boolean, Column, DateTime, MetaData, Text, func, text, true
from sqlalchemy.types import UserDefinedType
from sqlmodel import Field, SQLModel

ONE_ROW_PER_TENANT = "one_row_per_tenant"
"""Key of a table's `info`: true where a new tenant gets its row, made of the columns' defaults, in this table."""


class Table(SQLModel):
    """Base of the table classes. Constraints get the names that PostgreSQL would give them."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )


class Xid8(UserDefinedType[int]):
    """The 64-bit id of a transaction (PostgreSQL's xid8), which never wraps around. psycopg returns it as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "XID8"


def timestamptz(*, nullable: bool = False, default_now: bool = False, primary_key: bool = False) -> Any:
    """A timestamptz column. With `default_now` its default is the database's clock."""
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
    """The id of the transaction that wrote the row.

    Exports and counters read the rows of transactions that have ended. By a sequence or a clock they would miss a row
    whose transaction commits late.
    """
    return Field(default=None, sa_column=Column(Xid8, nullable=False, server_default=text("pg_current_xact_id()")))


def text_column(**options: Any) -> Any:
    """A text column. In PostgreSQL it costs no more than a column of bounded length."""
    return Field(sa_type=Text, **options)


def flag() -> Any:
    """A boolean column whose default is true."""
    return Field(default=True, sa_column=Column(Boolean, nullable=False, server_default=true()))
