"""The catalogue's state as the recommender needs it: its version, what changed since one, and which items are live."""

from psycopg.rows import tuple_row

from api.database.batch_loader import Gathered
from api.database.engine import Pool
from api.database.scope import TenantScope
from api.tenants.problems import TenantGone
from serving.contracts.messages import CatalogueDelta, ItemChange


class CatalogueReader:
    """Reads of one statement each, so that what they return is of one moment."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._versions = Gathered(self._read_versions)

    async def version(self, scope: TenantScope) -> int:
        """The catalogue's version. Raises TenantGone."""
        version = await self._versions.get(scope)
        if version is None:
            raise TenantGone
        return version

    async def _read_versions(self, scopes: list[TenantScope]) -> list[int | None]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_VERSIONS, {"tenants": list({scope.tenant_id for scope in scopes})})
            versions: dict[str, int] = dict(await cursor.fetchall())
        return [versions.get(scope.tenant_id) for scope in scopes]

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
        """Those of the ids that may be shown."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_LIVE, {"tenant": scope.tenant_id, "ids": ids})
            return {id_ for (id_,) in await cursor.fetchall()}

    async def find(self, scope: TenantScope, id_: str) -> tuple[int, bool]:
        """The catalogue's version, and whether there is such an item, active or not."""
        version, known = await self.find_all(scope, [id_])
        return version, id_ in known

    async def find_all(self, scope: TenantScope, ids: list[str]) -> tuple[int, set[str]]:
        """The catalogue's version, and those of the ids that are items, active or not."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_FIND, {"tenant": scope.tenant_id, "ids": ids})
            row = await cursor.fetchone()
        if row is None:
            raise TenantGone
        return row[0], set(row[1])


_DELTA = """
SELECT catalogue.version, item.id, item.version, item.is_active AND item.deleted_at IS NULL,
    CASE WHEN item.deleted_at IS NULL THEN item.metadata END
FROM catalogues AS catalogue
LEFT JOIN items AS item ON item.tenant_id = catalogue.tenant_id AND item.version > %(since)s
WHERE catalogue.tenant_id = %(tenant)s
"""

_VERSIONS = "SELECT tenant_id, version FROM catalogues WHERE tenant_id = ANY(%(tenants)s::text[])"

_LIVE = """
SELECT id FROM items WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s::text[]) AND is_active AND deleted_at IS NULL
"""

_FIND = """
SELECT version, ARRAY(
    SELECT id FROM items WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s::text[]) AND deleted_at IS NULL
)
FROM catalogues WHERE tenant_id = %(tenant)s
"""
