"""Deletes many rows in parts, each of which is a short transaction."""

import asyncio
from collections.abc import Mapping
from typing import Any

from api.database.engine import Pool

PART_ROWS = 2_000
"""Rows of a part. Nobody waits for the locks of more."""
PAUSE_SECONDS = 0.05
"""Between two parts, so that a large deletion leaves the database to others."""


async def delete_in_parts(pool: Pool, statement: str, parameters: Mapping[str, Any] | None = None) -> int:
    """Repeat a deletion until it finds less than a whole part, and return how many rows it deleted.

    Args:
        statement: deletes at most `%(rows)s` rows, and skips rows that others have locked.
    """
    deleted = 0
    while True:
        async with pool.connection() as connection:
            part = (await connection.execute(statement, {**(parameters or {}), "rows": PART_ROWS})).rowcount
        deleted += part
        if part < PART_ROWS:
            return deleted
        await asyncio.sleep(PAUSE_SECONDS)
