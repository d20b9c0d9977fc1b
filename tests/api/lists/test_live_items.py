"""Callers who need the same list at the same moment share its reads, and each gets what it asked for."""

import asyncio
from contextlib import AbstractAsyncContextManager

import psycopg

from api.database.engine import Connection, Database
from api.database.prepared import Rows
from api.database.scope import TenantScope
from api.lists.live_items import ANY_ITEM, CHUNKS, LiveItems
from tests.feature_store.rows import add_tenant

IDS = [f"item-{n:03}" for n in range(CHUNKS[0] + 20)]
CALLERS = 32


class CountingPool:
    """A database's pool, which counts what is read through it."""

    def __init__(self, database: Database) -> None:
        self._pool = database.pool
        self.borrowed = 0
        self.fetched = 0

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        self.borrowed += 1
        return self._pool.connection()

    async def fetch(self, statement: str, *parameters: str | None) -> Rows:
        self.fetched += 1
        return await self._pool.fetch(statement, *parameters)


def test_concurrent_callers_share_one_statement_and_each_gets_its_own_items(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        for tenant in ("acme", "other"):
            add_tenant(connection, tenant)
            connection.execute(
                "INSERT INTO items (tenant_id, version, id, metadata) SELECT %s, 1, unnest(%s::text[]), '{}'",
                [tenant, IDS],
            )
        connection.execute("UPDATE items SET is_active = false WHERE tenant_id = 'acme' AND id = ANY(%s)", [IDS[:2]])
        connection.execute("UPDATE items SET deleted_at = now() WHERE tenant_id = 'acme' AND id = %s", [IDS[3]])

    async def scenario() -> None:
        database = Database(database_url)
        await database.open()
        pool = CountingPool(database)
        items = LiveItems(pool)
        scope = TenantScope("acme")
        try:
            found = await asyncio.gather(
                *(items.first(scope, IDS, IDS[:n], ANY_ITEM, 2) for n in range(CALLERS)),
            )
            live = [at for at in range(len(IDS)) if at not in (0, 1, 3)]
            assert found == [[at for at in live if at >= n][:2] for n in range(CALLERS)]
            assert (pool.fetched, pool.borrowed) == (1, 0)
            assert await items.first(TenantScope("other"), IDS, [], ANY_ITEM, 4) == [0, 1, 2, 3]
            # Whoever leaves out all of the first chunk gets what follows it.
            assert await items.first(scope, IDS, IDS[: CHUNKS[0] + 1], ANY_ITEM, 2) == [CHUNKS[0] + 1, CHUNKS[0] + 2]
        finally:
            await database.close()

    asyncio.run(scenario())
