"""Reads of the catalogue that a recommendation needs: its version, the changes since one, and which items are live."""

from psycopg.rows import tuple_row

from api.database.batch_loader import BatchLoader
from api.database.engine import Pool
from api.database.prepared import text_array
from api.database.scope import TenantScope
from api.tenants.problems import TenantGone
from serving.contracts.messages import CatalogueDelta, CataloguePlace, ItemChange

PART_ITEMS = 2_000
PART_BYTES = 2 * 1024 * 1024
"""Of the metadata in one part of a delta. It is decoded and encoded in one go, and other requests wait meanwhile."""


class CatalogueReader:
    """Each method reads with one statement, so its result is of one moment. Concurrent callers share statements."""

    def __init__(self, pool: Pool, *, part_items: int = PART_ITEMS, part_bytes: int = PART_BYTES) -> None:
        """part_items, part_bytes: bounds on a part of a delta; a single item may have more bytes."""
        self._pool = pool
        self._bounds = {"items": part_items, "bytes": part_bytes}
        self._versions = BatchLoader(self._read_versions)
        self._items = BatchLoader(self._read_items)
        self._live = BatchLoader(self._read_live)

    async def version(self, scope: TenantScope) -> int:
        """The catalogue's version. Raises TenantGone."""
        version = await self._versions.load(scope)
        if version is None:
            raise TenantGone
        return version

    async def delta(self, scope: TenantScope, since: CataloguePlace) -> CatalogueDelta:
        """The items that changed after a place, as they are now; where they are many, the first of them.

        An item that changes between the reads of two parts is in both, since it moves to the end of the order.
        Raises TenantGone.
        """
        values = {"tenant": scope.tenant_id, "since": since.version, "since_item": since.item_id, **self._bounds}
        async with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(_DELTA, values)
            rows = await cursor.fetchall()
        if not rows:
            raise TenantGone
        changes = [
            ItemChange(id_, version, active, metadata)
            for _, _, id_, version, active, metadata in rows
            if id_ is not None  # the outer join's row where nothing changed
        ]
        catalogue_version, found = rows[0][:2]
        if not changes or (found == len(changes) and found < self._bounds["items"]):
            return CatalogueDelta(since.version, catalogue_version, changes, since.item_id)
        return CatalogueDelta(since.version, changes[-1].version, changes, since.item_id, changes[-1].item_id)

    async def live(self, scope: TenantScope, ids: list[str]) -> set[str]:
        """The ids of the items that exist and are active."""
        return await self._live.load((scope, tuple(ids)))

    async def find(self, scope: TenantScope, id_: str) -> tuple[int, bool, int]:
        """The catalogue's version, whether the item exists, active or not, and the tenant's `scenario_edition`.

        Raises TenantGone.
        """
        found = await self._items.load((scope, id_))
        if found is None:
            raise TenantGone
        return found

    async def _read_versions(self, scopes: list[TenantScope]) -> list[int | None]:
        rows = await self._pool.fetch(_VERSIONS, text_array(scope.tenant_id for scope in scopes))
        versions: dict[str, int] = dict(rows)
        return [versions.get(scope.tenant_id) for scope in scopes]

    async def _read_items(self, keys: list[tuple[TenantScope, str]]) -> list[tuple[int, bool, int] | None]:
        """By (tenant, item): what `find` returns; None where the tenant is gone."""
        rows = await self._pool.fetch(
            _FIND, text_array(scope.tenant_id for scope, _ in keys), text_array(id_ for _, id_ in keys)
        )
        found = {(tenant, id_): (version, exists, edition) for tenant, id_, version, exists, edition in rows}
        return [found.get((scope.tenant_id, id_)) for scope, id_ in keys]

    async def _read_live(self, keys: list[tuple[TenantScope, tuple[str, ...]]]) -> list[set[str]]:
        wanted = {(scope.tenant_id, id_) for scope, ids in keys for id_ in ids}
        rows = await self._pool.fetch(
            _LIVE, text_array(tenant for tenant, _ in wanted), text_array(id_ for _, id_ in wanted)
        )
        live = set(rows)
        return [{id_ for id_ in ids if (scope.tenant_id, id_) in live} for scope, ids in keys]


# Item ids are compared by code point, as the model server compares them.
_DELTA = """
WITH found AS MATERIALIZED (
    SELECT version, id COLLATE "C" AS id, is_active AND deleted_at IS NULL AS active,
        CASE WHEN deleted_at IS NULL THEN metadata END AS metadata
    FROM items
    WHERE tenant_id = %(tenant)s AND version >= %(since)s
        AND (version > %(since)s OR id COLLATE "C" > %(since_item)s::text)
    ORDER BY version, id COLLATE "C" LIMIT %(items)s
), part AS (
    SELECT *, count(*) OVER () AS total, row_number() OVER in_order AS place,
        sum(coalesce(octet_length(metadata::text), 0)) OVER in_order AS bytes
    FROM found WINDOW in_order AS (ORDER BY version, id)
)
SELECT catalogue.version, part.total, part.id, part.version, part.active, part.metadata
FROM catalogues AS catalogue LEFT JOIN part ON part.bytes <= %(bytes)s OR part.place = 1
WHERE catalogue.tenant_id = %(tenant)s
ORDER BY part.version, part.id
"""

_VERSIONS = "SELECT tenant_id, version FROM catalogues WHERE tenant_id = ANY($1::text[])"

_LIVE = """
SELECT item.tenant_id, item.id
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, id)
JOIN items AS item ON item.tenant_id = asked.tenant_id AND item.id = asked.id
WHERE item.is_active AND item.deleted_at IS NULL
"""

_FIND = """
SELECT asked.tenant_id, asked.id, catalogue.version, item.id IS NOT NULL, tenant.scenario_edition
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, id)
JOIN catalogues AS catalogue ON catalogue.tenant_id = asked.tenant_id
JOIN tenants AS tenant ON tenant.id = asked.tenant_id
LEFT JOIN items AS item
    ON item.tenant_id = asked.tenant_id AND item.id = asked.id AND item.deleted_at IS NULL
"""
