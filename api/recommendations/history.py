"""The online view of a user, read for one request: newest events, what the user has seen, the catalogue's version."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from psycopg.rows import TupleRow

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.items.catalogue import TenantGone
from configs.settings import HistorySettings
from feature_store.online import TYPE_WEIGHTS
from serving.contracts.messages import Event


@dataclass(frozen=True, slots=True)
class UserView:
    """What the database knows at one moment."""

    catalogue_version: int
    exclude_seen: str  # none, bought or all: the request's, else the tenant's
    events: list[Event]  # oldest first, at most HistorySettings.max_events
    seen: list[str]  # newest first, at most HistorySettings.max_seen


class HistoryReader:
    """One round trip per user."""

    def __init__(self, pool: Pool, settings: HistorySettings) -> None:
        self._pool = pool
        self._bounds = {
            "max_events": settings.max_events,
            "max_seen": settings.max_seen,
            "looked_at": settings.looked_at,
        }
        self._decode = msgspec.json.Decoder(list[Event]).decode

    async def view(self, scope: TenantScope, user_id: str, exclude_seen: str | None) -> UserView:
        """The view of this user, who need not exist. Raises TenantGone."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_VIEW, self._parameters(scope, user_id, exclude_seen))
            return self._view(await cursor.fetchone())

    async def views(self, wanted: Sequence[tuple[TenantScope, str, str | None]]) -> list[UserView]:
        """Several views, the arguments of `view` each, on one connection in one round trip. Raises TenantGone."""
        async with self._pool.connection() as connection, connection.pipeline():
            cursors = [await connection.execute(_VIEW, self._parameters(*each)) for each in wanted]
            return [self._view(await cursor.fetchone()) for cursor in cursors]

    def _parameters(self, scope: TenantScope, user_id: str, exclude_seen: str | None) -> dict[str, Any]:
        return {"tenant": scope.tenant_id, "user": user_id, "exclude_seen": exclude_seen, **self._bounds}

    def _view(self, row: TupleRow | None) -> UserView:
        if row is None:
            raise TenantGone
        version, effective, events, seen = row
        history = self._decode(events) if events is not None else []
        history.reverse()
        return UserView(version, effective, history, seen or [])


_TYPE_WEIGHT = " ".join(f"WHEN '{name}' THEN {weight}" for name, weight in TYPE_WEIGHTS.items())

# Events of one moment are in the order of their items, as in a feature snapshot. The limit of `recent` depends on
# whether seen items are wanted, so that the common read touches as few index entries as it can.
_VIEW = f"""
WITH setting AS MATERIALIZED (
    SELECT catalogue.version, coalesce(%(exclude_seen)s, tenant.exclude_seen) AS exclude_seen
    FROM catalogues AS catalogue JOIN tenants AS tenant ON tenant.id = catalogue.tenant_id
    WHERE catalogue.tenant_id = %(tenant)s
), recent AS MATERIALIZED (
    SELECT item_id, interaction_type, value, occurred_at
    FROM interactions
    WHERE tenant_id = %(tenant)s AND user_id = %(user)s
    ORDER BY occurred_at DESC, item_id COLLATE "C" DESC
    LIMIT (SELECT CASE exclude_seen WHEN 'none' THEN %(max_events)s ELSE %(looked_at)s END FROM setting)
)
SELECT
    version,
    exclude_seen,
    (
        SELECT json_agg(json_build_array(
            item_id,
            interaction_type,
            coalesce(value, CASE interaction_type {_TYPE_WEIGHT} END),
            (extract(epoch FROM occurred_at) * 1000000)::bigint
        ))::text
        FROM (SELECT * FROM recent LIMIT %(max_events)s) AS newest
    ),
    CASE WHEN exclude_seen <> 'none' THEN ARRAY(
        SELECT item_id FROM recent
        WHERE exclude_seen = 'all' OR interaction_type = 'purchase'
        GROUP BY item_id ORDER BY max(occurred_at) DESC LIMIT %(max_seen)s
    ) END
FROM setting
"""  # noqa: S608 - the weights are numbers of this code base
