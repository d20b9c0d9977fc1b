"""Reads for lists and segments: what segments a tenant has, and whose lists are out of date."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from feature_store import columns as c
from feature_store.sources import repeatable_read


@dataclass(frozen=True)
class SegmentRule:
    """What makes a user or an item a member of a segment, as somebody last changed it."""

    id: str
    name: str
    kind: Literal["users", "items"]
    filter: dict[str, Any] | None  # on the metadata of items, in the filter language
    types: tuple[str, ...]  # of interaction; empty: membership does not depend on what users do
    at_least: int  # events of these types
    days: int  # before the tenant's newest event
    updated_at: str  # as the database writes it, so that a later change is noticed


@dataclass(frozen=True)
class ListState:
    """When a tenant's lists were made, and when the newest segment was changed that waits to be measured."""

    tenant_id: str
    made_at: datetime | None
    waiting_since: datetime | None


def segment_rules(url: str, tenant_id: str) -> list[SegmentRule]:
    """The segments of a tenant, by age."""
    with repeatable_read(url) as cursor:
        cursor.execute(_RULES, (tenant_id,))
        rows = cursor.fetch_arrow_table().to_pylist()
    return [_rule(row) for row in rows]


def list_states(url: str) -> list[ListState]:
    """The state of every tenant that is not deleted, by id."""
    with repeatable_read(url) as cursor:
        cursor.execute(_STATES, (c.TRENDING,))
        return [ListState(**row) for row in cursor.fetch_arrow_table().to_pylist()]


def _rule(row: dict[str, Any]) -> SegmentRule:
    behaviour = json.loads(row.pop("behaviour") or "{}")
    return SegmentRule(
        **{**row, "filter": None if row["filter"] is None else json.loads(row["filter"])},
        types=tuple(behaviour.get("interactionTypes", ())),
        at_least=behaviour.get("atLeast", 1),
        days=behaviour.get("days", 1),
    )


_RULES = """
SELECT id::text AS id, name, kind, filter::text AS filter, behaviour::text AS behaviour, updated_at::text AS updated_at
FROM segments WHERE tenant_id = $1 ORDER BY created_at, id
"""

_STATES = """
SELECT tenants.id AS tenant_id, trending.made_at, (
    SELECT max(updated_at) FROM segments WHERE segments.tenant_id = tenants.id AND segments.measured_at IS NULL
) AS waiting_since
FROM tenants
LEFT JOIN item_lists AS trending ON trending.tenant_id = tenants.id AND trending.source = $1 AND trending.of_item = ''
WHERE tenants.deleted_at IS NULL ORDER BY tenants.id
"""
