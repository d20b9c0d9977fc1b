"""Reads a user for one request: the newest events, the seen items, and the catalogue's version."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from psycopg.rows import TupleRow

from api.database.batch_loader import BatchLoader
from api.database.engine import Pool
from api.database.scope import TenantScope
from api.tenants.problems import TenantGone
from configs.settings import HistorySettings
from feature_store.interaction_types import EVENT_WEIGHT_SQL, SeenPolicy, makes_seen_sql
from serving.contracts.messages import HistoryEvent

ViewKey = tuple[TenantScope, str, str | None]
"""The tenant, the user's id, and the policy on seen items (None: the tenant's default)."""


@dataclass(frozen=True, slots=True)
class UserView:
    """What the database holds of one user at one moment."""

    catalogue_version: int
    exclude_seen: SeenPolicy  # the request's, else the tenant's
    events: list[HistoryEvent]  # oldest first, at most HistorySettings.max_events
    seen: list[str]  # newest first, at most HistorySettings.max_seen


class HistoryReader:
    """Reads user views. Views that are requested at the same time are read in one round trip."""

    def __init__(self, pool: Pool, settings: HistorySettings) -> None:
        self._pool = pool
        self._bounds = {
            "max_events": settings.max_events,
            "max_seen": settings.max_seen,
            "max_scanned": settings.max_scanned,
        }
        self._decode = msgspec.json.Decoder(list[HistoryEvent]).decode
        self._views = BatchLoader(self._read)

    async def view(self, scope: TenantScope, user_id: str, exclude_seen: str | None) -> UserView:
        """The view of one user, who may be unknown. Raises TenantGone."""
        view = await self._views.load((scope, user_id, exclude_seen))
        if view is None:
            raise TenantGone
        return view

    async def _read(self, keys: Sequence[ViewKey]) -> list[UserView | None]:
        """The views in the order of their keys; None where the tenant is gone."""
        columns = {
            "tenants": [scope.tenant_id for scope, _, _ in keys],
            "users": [user_id for _, user_id, _ in keys],
            "exclude_seen": [exclude_seen for _, _, exclude_seen in keys],
        }
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_VIEWS, {**columns, **self._bounds})
            return [self._view(row) for row in await cursor.fetchall()]

    def _view(self, row: TupleRow) -> UserView | None:
        version, effective, events, seen = row
        if version is None:
            return None
        history = self._decode(events) if events is not None else []
        history.reverse()
        return UserView(version, effective, history, seen or [])


# Events with equal timestamps are ordered by item id, as in a feature snapshot. `recent` reads fewer events where the
# policy is "none", so that this common read touches as few index entries as possible.
_VIEWS = f"""
SELECT view.*
FROM unnest(%(tenants)s::text[], %(users)s::text[], %(exclude_seen)s::text[])
    WITH ORDINALITY AS wanted (tenant_id, user_id, exclude_seen, place)
LEFT JOIN LATERAL (
    WITH setting AS MATERIALIZED (
        SELECT catalogue.version, coalesce(wanted.exclude_seen, tenant.exclude_seen) AS exclude_seen
        FROM catalogues AS catalogue JOIN tenants AS tenant ON tenant.id = catalogue.tenant_id
        WHERE catalogue.tenant_id = wanted.tenant_id
    ), recent AS MATERIALIZED (
        SELECT item_id, interaction_type, value, occurred_at
        FROM interactions
        WHERE tenant_id = wanted.tenant_id AND user_id = wanted.user_id
        ORDER BY occurred_at DESC, item_id COLLATE "C" DESC
        LIMIT (SELECT CASE exclude_seen WHEN 'none' THEN %(max_events)s ELSE %(max_scanned)s END FROM setting)
    )
    SELECT
        version,
        exclude_seen,
        (
            SELECT json_agg(json_build_array(
                item_id,
                interaction_type,
                {EVENT_WEIGHT_SQL},
                (extract(epoch FROM occurred_at) * 1000000)::bigint
            ))::text
            FROM (SELECT * FROM recent LIMIT %(max_events)s) AS newest
        ) AS events,
        CASE WHEN exclude_seen <> 'none' THEN ARRAY(
            SELECT item_id FROM recent
            WHERE {makes_seen_sql("exclude_seen")}
            GROUP BY item_id ORDER BY max(occurred_at) DESC LIMIT %(max_seen)s
        ) END AS seen
    FROM setting
) AS view ON true
ORDER BY place
"""  # noqa: S608 - the weights are numbers of this code base
