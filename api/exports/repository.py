"""Reads what is held on a person, page by page."""

from collections.abc import AsyncIterator
from typing import Any

from api.audit.references import user_reference
from api.database.engine import Pool
from api.database.scope import TenantScope
from api.exports.sources import PROFILE, ExportSource
from api.idempotency.repository import user_digest

PAGE_ROWS = 500
"""Rows that are read, encoded and sent at once."""

Rows = list[dict[str, Any]]


class PersonRepository:
    """The rows about one person of one tenant. A connection is held for one page at a time, however slow the reader."""

    def __init__(self, pool: Pool, scope: TenantScope, user_id: str) -> None:
        self._pool = pool
        self._parameters: dict[str, Any] = {
            "tenant": scope.tenant_id,
            "user": user_id,
            "reference": user_reference(user_id),
            "digest": user_digest(scope.tenant_id, user_id),
            "limit": PAGE_ROWS,
        }

    async def profile(self) -> dict[str, Any] | None:
        """The person's own row; None where there is no such user."""
        rows = [row async for page in self.pages(PROFILE) for row in page]
        return rows[0] if rows else None

    async def pages(self, source: ExportSource, email: str | None = None) -> AsyncIterator[Rows]:
        """The source's rows about the person, in the order of its key."""
        parameters = {**self._parameters, "email": email}
        first = True
        while True:
            async with self._pool.connection() as connection:
                cursor = connection.cursor()
                await cursor.execute(source.statement(first=first), parameters)
                found = await cursor.fetchall()
            if found:
                yield [dict(zip(source.columns(), row[len(source.key) :], strict=True)) for row in found]
            if len(found) < PAGE_ROWS:
                return
            parameters |= {f"after_{place}": found[-1][place] for place in range(len(source.key))}
            first = False
