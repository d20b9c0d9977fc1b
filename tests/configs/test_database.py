"""Limits of connections: what the server ends by itself, by purpose of the connection."""

import psycopg
import pytest
from adbc_driver_postgresql import dbapi
from sqlalchemy import create_engine, text

from api.database.engine import sqlalchemy_url
from configs.database import ConnectionLimits, LimitsOfJobs, LimitsOfRequests, limited

NAMES = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
SHOWN = "SELECT " + ", ".join(f"current_setting('{name}')" for name in NAMES)


def test_every_driver_connects_with_the_limits(database_url: str) -> None:
    url = LimitsOfRequests(statement=7, lock=3, idle_transaction=11).limited(database_url)
    with psycopg.connect(url) as connection:
        assert connection.execute(SHOWN).fetchone() == ("7s", "3s", "11s")
    with create_engine(sqlalchemy_url(url)).connect() as connection:
        assert tuple(connection.execute(text(SHOWN)).one()) == ("7s", "3s", "11s")
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(SHOWN)
        assert cursor.fetchone() == ("7s", "3s", "11s")


def test_a_statement_a_wait_and_an_idle_transaction_end(database_url: str) -> None:
    url = limited(database_url, ConnectionLimits(statement=0.2, lock=0.1, idle_transaction=0.2))
    with psycopg.connect(url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")
        with psycopg.connect(database_url) as other:
            other.execute("SELECT pg_advisory_lock(1)")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                connection.execute("SELECT pg_advisory_lock(1)")
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")
        with psycopg.connect(database_url) as other:
            other.execute("SELECT pg_sleep(1)")
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            connection.execute("SELECT 1")


def test_jobs_have_longer_ones_than_requests() -> None:
    jobs, requests = LimitsOfJobs(), LimitsOfRequests()
    assert 0 < requests.statement < jobs.statement
    assert 0 < requests.lock < jobs.lock
    assert 0 < requests.idle_transaction < jobs.idle_transaction


def test_options_of_one_s_own_go_first_and_zero_is_no_limit() -> None:
    url = "postgresql://a:p%40ss@h:5/d?sslmode=require"
    assert limited(url, ConnectionLimits(0, 0, 0)) == url
    made = limited(f"{url}&options=-c%20lock_timeout%3D9", ConnectionLimits(1, 2, 0))
    assert made.startswith("postgresql://a:p%40ss@h:5/d?sslmode=require&options=")
    info = psycopg.conninfo.conninfo_to_dict(made)
    assert info["password"] == "p@ss"
    assert info["options"] == "-c statement_timeout=1000 -c lock_timeout=2000 -c lock_timeout=9"
