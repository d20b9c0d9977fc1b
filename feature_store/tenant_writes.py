"""Writes to a tenant's tables: a transaction, and the lock that keeps the tenant from being deleted meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adbc_driver_postgresql import dbapi

_LOCK_TENANT = "SELECT id FROM tenants WHERE id = $1 AND deleted_at IS NULL FOR SHARE"


@contextmanager
def write_transaction(url: str) -> Iterator[dbapi.Cursor]:
    """A cursor whose statements are committed together at the end of the block, or not at all if it raises."""
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        try:
            yield cursor
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


def fetch_rows(cursor: dbapi.Cursor, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Execute a statement with these parameters as `$1`, `$2`, ..., and return its rows."""
    cursor.execute(statement, parameters or None)
    return list(cursor.fetchall())


def lock_tenant(cursor: dbapi.Cursor, tenant_id: str) -> None:
    """Keep the tenant from being deleted until the transaction ends.

    Raises LookupError where there is no such tenant.
    """
    if not fetch_rows(cursor, _LOCK_TENANT, tenant_id):
        raise LookupError(f"there is no tenant {tenant_id}")
