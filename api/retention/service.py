"""Deletes rows that are older than the installation keeps them."""

import structlog

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.retention.repository import delete_expired_rows
from configs.retention import RetentionSettings

TURN_SECONDS = 3_600.0

log = structlog.get_logger(__name__)


def deleting_expired_rows(pool: Pool, settings: RetentionSettings) -> PeriodicTask:
    """Deletes, inside its block, what is too old, at once and every hour. Several processes share the work."""

    async def turn() -> None:
        deleted = await delete_expired_rows(pool, settings)
        if any(deleted.values()):
            log.info("expired rows were deleted", **{table: count for table, count in deleted.items() if count})

    return PeriodicTask("retention", turn, TURN_SECONDS, expected=UNREACHABLE, starts_with_pause=False)
