"""Migrations make exactly the tables that the code declares, one caller at a time, and can be taken back."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql.base import ischema_names

from api.database.base import Xid8
from api.database.engine import sqlalchemy_url
from api.database.migrate import downgrade, head_revision, upgrade
from api.database.tables import all_tables

CHECKS = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace"


def _tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {
            name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        } - {"alembic_version"}


def test_the_migrated_database_has_the_declared_tables_columns_and_indexes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)  # SQLAlchemy knows no such type by itself
    with create_engine(sqlalchemy_url(database_url)).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), all_tables()) == []


def test_the_migrated_database_has_the_declared_checks(database_url: str) -> None:
    declared = {
        str(constraint.name)
        for table in all_tables().tables.values()
        for constraint in table.constraints
        if constraint.__visit_name__ == "table_or_column_check_constraint"
    }
    with psycopg.connect(database_url) as connection:
        found = {name for (name,) in connection.execute(CHECKS)}
    assert declared
    assert declared == found


def test_up_down_and_up_again(empty_database_url: str) -> None:
    assert upgrade(empty_database_url) == head_revision()
    assert _tables(empty_database_url) == set(all_tables().tables)
    assert downgrade(empty_database_url, "base") == ""
    assert _tables(empty_database_url) == set()
    assert upgrade(empty_database_url) == head_revision()
    assert _tables(empty_database_url) == set(all_tables().tables)


def test_callers_that_migrate_at_once_take_turns(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(upgrade, [empty_database_url] * 4)) == {head_revision()}
    assert _tables(empty_database_url) == set(all_tables().tables)
