"""Reads of the catalogue that a recommendation needs: its version, the changes since one, and which items are live."""

from psycopg.rows import tuple_row

from api.database.batch_loader import BatchLoader
from api.database.engine import Pool
from api.database.scope import TenantScope
from api.tenants.problems import TenantGone
from serving.contracts.messages import CatalogueDelta, ItemChange


class CatalogueReader:
    """Each method reads with one statement, so its result is of one moment. Concurrent callers share statements."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._versions = BatchLoader(self._read_versions)
        self._items = BatchLoader(self._read_items)
        self._live = BatchLoader(self._read_live)

    async def version(self, scope: TenantScope) -> int:
        """The catalogue's version. Raises TenantGone."""
        version = await self._versions.load(scope)
        if version is None:
            raise TenantGone
        return version

    async def delta(self, scope: TenantScope, since: int) -> CatalogueDelta:
        """Every item that changed after version `since`, as it is now. Raises TenantGone."""
        async with self._pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(_DELTA, {"tenant": scope.tenant_id, "since": since})
            rows = await cursor.fetchall()
        if not rows:
            raise TenantGone
        changes = [
            ItemChange(id_, version, active, metadata)
            for _, id_, version, active, metadata in rows
            if id_ is not None  # the outer join's row where nothing changed
        ]
        return CatalogueDelta(since, rows[0][0], changes)

    async def live(self, scope: TenantScope, ids: list[str]) -> set[str]:
        """The ids of the items that exist and are active."""
        return await self._live.load((scope, tuple(ids)))

    async def find(self, scope: TenantScope, id_: str) -> tuple[int, bool]:
        """The catalogue's version, and whether the item exists, active or not. Raises TenantGone."""
        found = await self._items.load((scope, id_))
        if found is None:
            raise TenantGone
        return found

    async def _read_versions(self, scopes: list[TenantScope]) -> list[int | None]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_VERSIONS, {"tenants": [scope.tenant_id for scope in scopes]})
            versions: dict[str, int] = dict(await cursor.fetchall())
        return [versions.get(scope.tenant_id) for scope in scopes]

    async def _read_items(self, keys: list[tuple[TenantScope, str]]) -> list[tuple[int, bool] | None]:
        """By (tenant, item): the catalogue's version and whether the item exists; None where the tenant is gone."""
        columns = {"tenants": [scope.tenant_id for scope, _ in keys], "ids": [id_ for _, id_ in keys]}
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_FIND, columns)
            found = {(tenant, id_): (version, exists) for tenant, id_, version, exists in await cursor.fetchall()}
        return [found.get((scope.tenant_id, id_)) for scope, id_ in keys]

    async def _read_live(self, keys: list[tuple[TenantScope, tuple[str, ...]]]) -> list[set[str]]:
        wanted = {(scope.tenant_id, id_) for scope, ids in keys for id_ in ids}
        columns = {"tenants": [tenant for tenant, _ in wanted], "ids": [id_ for _, id_ in wanted]}
        async with self._pool.connection() as connection:
            live = set(await (await connection.execute(_LIVE, columns)).fetchall())
        return [{id_ for id_ in ids if (scope.tenant_id, id_) in live} for scope, ids in keys]


_DELTA = """
SELECT catalogue.version, item.id, item.version, item.is_active AND item.deleted_at IS NULL,
    CASE WHEN item.deleted_at IS NULL THEN item.metadata END
FROM catalogues AS catalogue
LEFT JOIN items AS item ON item.tenant_id = catalogue.tenant_id AND item.version > %(since)s
WHERE catalogue.tenant_id = %(tenant)s
"""

_VERSIONS = "SELECT tenant_id, version FROM catalogues WHERE tenant_id = ANY(%(tenants)s::text[])"

_LIVE = """
SELECT item.tenant_id, item.id
FROM unnest(%(tenants)s::text[], %(ids)s::text[]) AS asked (tenant_id, id)
JOIN items AS item ON item.tenant_id = asked.tenant_id AND item.id = asked.id
WHERE item.is_active AND item.deleted_at IS NULL
"""

_FIND = """
SELECT asked.tenant_id, asked.id, catalogue.version, item.id IS NOT NULL
FROM unnest(%(tenants)s::text[], %(ids)s::text[]) AS asked (tenant_id, id)
JOIN catalogues AS catalogue ON catalogue.tenant_id = asked.tenant_id
LEFT JOIN items AS item
    ON item.tenant_id = asked.tenant_id AND item.id = asked.id AND item.deleted_at IS NULL
"""
