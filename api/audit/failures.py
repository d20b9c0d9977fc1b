"""Failures to log in, on their way into the audit trail.

A refused login must take as long for an address that somebody has as for one that nobody has, and must not wait for
another write. So a failure is put into memory, and a background task writes it within a second.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog

from api.audit.repository import ROWS_PER_HOUR, AuditTrail, FailedAttempts
from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.database.origin import Origin
from api.database.scope import TenantScope

FLUSH_SECONDS = 1.0
CAPACITY = 5_000
"""Users with failures that are not written yet. While the database is down, failures of further users are dropped."""

log = structlog.get_logger(__name__)
Account = tuple[str, str]
"""Tenant and user."""


class LoginFailures:
    """The failures of one process that are not written yet."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._pending: dict[Account, FailedAttempts] = {}
        self._dropped = 0

    def record(self, tenant_id: str, user_id: str, origin: Origin) -> None:
        """Note a failure. Takes the same time whatever is pending, and never waits."""
        account = (tenant_id, user_id)
        if account not in self._pending and len(self._pending) >= CAPACITY:
            self._dropped += 1
            return
        failed = self._pending.setdefault(account, FailedAttempts())
        if len(failed.first) < ROWS_PER_HOUR:
            failed.first.append((datetime.now(UTC), origin.address))
        else:
            failed.more += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside the block, failures are written every `FLUSH_SECONDS`; leaving it writes the rest."""
        try:
            async with PeriodicTask("failed logins", self.flush, FLUSH_SECONDS, expected=UNREACHABLE):
                yield
        finally:
            try:
                await self.flush()
            except UNREACHABLE as error:
                log.warning("failures to log in were not stored", error=repr(error), users=len(self._pending))

    async def flush(self) -> None:
        """Write what is pending. Where that fails, it stays pending."""
        taken, self._pending = self._pending, {}
        dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("failures to log in were dropped", count=dropped)
        if not taken:
            return
        by_tenant: dict[str, dict[str, FailedAttempts]] = {}
        for (tenant_id, user_id), failed in taken.items():
            by_tenant.setdefault(tenant_id, {})[user_id] = failed
        try:
            for tenant_id, failures in by_tenant.items():
                await self._write(TenantScope(tenant_id), failures)
                taken = {account: failed for account, failed in taken.items() if account[0] != tenant_id}
        except BaseException:
            self._restore(taken)
            raise

    async def _write(self, scope: TenantScope, failures: dict[str, FailedAttempts]) -> None:
        """Write the failures of one tenant's users in one transaction."""
        async with self._pool.connection() as connection, connection.transaction():
            trail = AuditTrail(connection, scope)
            await trail.lock_failures()
            for user_id, failed in failures.items():
                await trail.add_failures(user_id, failed)

    def _restore(self, taken: dict[Account, FailedAttempts]) -> None:
        """Put failures back that could not be written, before those that came meanwhile."""
        for account, failed in self._pending.items():
            if (earlier := taken.get(account)) is None:
                if len(taken) < CAPACITY:
                    taken[account] = failed
                continue
            free = ROWS_PER_HOUR - len(earlier.first)
            earlier.first += failed.first[:free]
            earlier.more += failed.more + len(failed.first[free:])
        self._pending = taken
