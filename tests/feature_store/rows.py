"""Writes rows into the product's tables as the API would, for tests of what reads them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg


def add_tenant(connection: psycopg.Connection[Any], tenant: str, exclude_seen: str = "all") -> None:
    connection.execute(
        "INSERT INTO tenants (id, plan, exclude_seen) VALUES (%s, 'unlimited', %s)", (tenant, exclude_seen)
    )
    connection.execute("INSERT INTO catalogues (tenant_id) VALUES (%s)", (tenant,))


def add_items(connection: psycopg.Connection[Any], tenant: str, items: Mapping[str, Mapping[str, Any]]) -> int:
    """Insert or replace items in one transaction's catalogue version, which is returned."""
    found = connection.execute(
        "UPDATE catalogues SET version = version + 1 WHERE tenant_id = %s RETURNING version", (tenant,)
    ).fetchone()
    assert found is not None
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO items (tenant_id, id, metadata, version) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (tenant_id, id) DO UPDATE SET metadata = excluded.metadata, version = excluded.version, "
            "deleted_at = NULL",
            [(tenant, item, json.dumps(metadata), found[0]) for item, metadata in items.items()],
        )
    return found[0]


def delete_item(connection: psycopg.Connection[Any], tenant: str, item: str) -> None:
    connection.execute("UPDATE catalogues SET version = version + 1 WHERE tenant_id = %s", (tenant,))
    connection.execute(
        "UPDATE items SET deleted_at = now(), metadata = '{}' WHERE tenant_id = %s AND id = %s", (tenant, item)
    )


def add_interactions(
    connection: psycopg.Connection[Any],
    tenant: str,
    events: Sequence[tuple[str, str]],
    *,
    kind: str = "like",
    value: float | None = None,
    at: datetime = datetime(2024, 1, 1, tzinfo=UTC),
    arrived: datetime | None = None,
) -> None:
    """events: (user id, item id) pairs."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO interactions "
            "(tenant_id, id, user_id, item_id, interaction_type, value, occurred_at, ingested_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, coalesce(%s, now()))",
            [(tenant, uuid4(), user, item, kind, value, at, arrived) for user, item in events],
        )
