"""Deletes what was written for a tenant while it was being deleted.

Until a deletion commits, requests do not see it, and for 5 seconds more processes know the tenant's credentials. What
such a request commits after the deletion has passed its table would stay for ever, so it is deleted again.
"""

from datetime import timedelta

import structlog

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Database
from api.database.session import transaction
from api.tenants.repository import TenantRepository

LATELY = timedelta(days=1)
"""After a deletion, which is longer than any request and any outage of the API that somebody waits for."""
SWEEP_SECONDS = 60.0

log = structlog.get_logger(__name__)


async def delete_leftovers(database: Database) -> int:
    """Delete the rows of all tenants that were deleted lately, and return how many there were."""
    async with transaction(database) as session:
        tenants = await TenantRepository(session).deleted_within(LATELY)
    deleted = 0
    for scope in tenants:
        async with transaction(database) as session:
            deleted += await TenantRepository(session).delete_rows(scope)
    return deleted


def sweeping(database: Database) -> PeriodicTask:
    """Deletes leftovers, inside its block, every minute."""

    async def sweep() -> None:
        if rows := await delete_leftovers(database):
            log.info("rows of deleted tenants were deleted", count=rows)

    return PeriodicTask("leftovers of deleted tenants", sweep, SWEEP_SECONDS, expected=UNREACHABLE)
