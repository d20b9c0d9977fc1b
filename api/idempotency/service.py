"""Deletes idempotency records that have expired."""

import structlog

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.idempotency.repository import delete_expired

EXPIRY_CHECK_SECONDS = 600.0

log = structlog.get_logger(__name__)


def expiring(pool: Pool) -> PeriodicTask:
    """Deletes, inside its block, the records that are older than a day, every ten minutes."""

    async def expire() -> None:
        log.debug("idempotency records expired", count=await delete_expired(pool))

    return PeriodicTask("expiry of idempotency records", expire, EXPIRY_CHECK_SECONDS, expected=UNREACHABLE)
