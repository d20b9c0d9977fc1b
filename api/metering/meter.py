"""The meter of an API process: it admits requests by their tenant's budget, and counts the units used.

Requests are admitted and counted in memory. Every `TICK_SECONDS` the counts are written to the database in one
statement, and another reads the current terms and totals of the tenants in use, with what other processes counted. So a
process knows of the others' counts within a second, and only a tenant's first request waits for the database.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import structlog
from prometheus_client import Gauge

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.metering import repository
from api.metering.generation_budget import allow_generations
from api.metering.refusals import budget_refusal
from api.metering.repository import Count, CycleKey, Standing
from api.metering.terms import Entitlement

TICK_SECONDS = 0.4
GENERATIONS_SECONDS = 1.0
IN_USE = timedelta(seconds=30)
"""How long after a tenant's last request its standing is still refreshed."""

_WRITTEN = Gauge(
    "recommendai_usage_written_timestamp_seconds",
    "When a process last had all its counted usage in the database",
    multiprocess_mode="mostrecent",
)

log = structlog.get_logger(__name__)


class _Account:
    """The cached standing of a tenant in use."""

    __slots__ = ("ends", "key", "refused_from", "standing", "used_at")

    def __init__(self, standing: Standing, used_at: datetime) -> None:
        self.standing = standing
        self.used_at = used_at
        cycle = standing.terms.cycle
        self.key: CycleKey = (standing.terms.tenant_id, cycle.start)
        self.ends = cycle.end
        self.refused_from = standing.terms.refused_from


class Meter:
    """One per process. Where the process is killed, the counts since the last tick are lost, in the tenant's favour."""

    def __init__(self, pool: Pool, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._pool = pool
        self.now = clock
        self._process = uuid4()
        self._sequence = 0
        self._accounts: dict[str, _Account] = {}
        self._loading: dict[str, asyncio.Task[_Account]] = {}
        self._waiting: dict[CycleKey, Count] = {}
        self._sending: dict[CycleKey, Count] = {}  # sent under the last sequence number, not confirmed yet
        self._turn = asyncio.Lock()  # no standing is read between a flush and its confirmation

    async def admit(self, tenant_id: str, pending: int = 0) -> Entitlement:
        """The terms of the tenant's cycle, if it has budget left. Raises QuotaExceeded where it has none, TenantGone.

        pending: units that the same request was admitted for before and that are not counted yet.
        """
        return self._admit(await self._account(tenant_id), pending)

    def admit_without_waiting(self, tenant_id: str) -> Entitlement | None:
        """As `admit`. Returns None where the tenant's standing must be read from the database first."""
        account = self._in_use(tenant_id)
        return None if account is None else self._admit(account, 0)

    async def terms_of(self, tenant_id: str) -> Entitlement:
        """The terms of the tenant's cycle, whether or not budget is left. Raises TenantGone."""
        return (await self._account(tenant_id)).standing.terms

    def count(self, terms: Entitlement, units: int) -> None:
        """Add units to the cycle of these terms, which `admit` returned."""
        key = (terms.tenant_id, terms.cycle.start)
        if (count := self._waiting.get(key)) is None:
            count = self._waiting[key] = Count(terms, 0, None)
        count.terms = terms
        count.units += units
        count.last_request_at = self.now()

    async def flush(self) -> None:
        """Write everything counted so far to the database. Raises where the database fails."""
        async with self._turn:
            if self._sending:
                await self._send()
            # Only once: under load new counts wait whenever the write returns, and the next tick writes those.
            if self._waiting:
                self._sequence += 1
                self._sending, self._waiting = self._waiting, {}
                await self._send()

    async def _send(self) -> None:
        # Where the reply is lost, the same counts are sent again under the same number, and are added only once.
        added = await repository.add_counts(self._pool, self._process, self._sequence, self._sending.values())
        sent, self._sending = self._sending, {}
        for key, count in sent.items():
            self._confirm(key, added.get(key), count.units)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Meter"]:
        """Inside the block, counts are written and standings are refreshed. On leaving, the rest is written."""
        try:
            async with (
                PeriodicTask("usage", self._tick, TICK_SECONDS, expected=UNREACHABLE),
                PeriodicTask("usage of generations", self._add_generated, GENERATIONS_SECONDS, expected=UNREACHABLE),
            ):
                yield self
        finally:
            try:
                await self.flush()
                await repository.forget_process(self._pool, self._process)
            except (psycopg.Error, *UNREACHABLE) as error:
                lost = sum(count.units for count in (*self._sending.values(), *self._waiting.values()))
                log.error("usage lost: the database does not answer", units=lost, error=repr(error))

    async def _tick(self) -> None:
        if self._sending or self._waiting:
            await self.flush()
        _WRITTEN.set_to_current_time()
        await self._refresh()

    async def _add_generated(self) -> None:
        now = self.now()
        await repository.add_generated(self._pool, now)
        await allow_generations(self._pool, now)

    async def _refresh(self) -> None:
        """Refresh the standings of the tenants in use, and drop the others."""
        now = self.now()
        for tenant_id in [id_ for id_, account in self._accounts.items() if account.used_at < now - IN_USE]:
            del self._accounts[tenant_id]
        if not self._accounts:
            return
        async with self._turn:
            in_use = list(self._accounts)
            standings = await repository.standings_of(self._pool, in_use, now)
        for tenant_id in in_use:
            if (standing := standings.get(tenant_id)) is None:
                self._accounts.pop(tenant_id, None)
            elif (known := self._accounts.get(tenant_id)) is not None:
                self._accounts[tenant_id] = _Account(standing, known.used_at)

    def _admit(self, account: _Account, pending: int) -> Entitlement:
        refused_from = account.refused_from
        if refused_from is not None:
            units = account.standing.units + self._unconfirmed(account.key) + pending
            if units >= refused_from:
                raise budget_refusal(account.standing.terms)
        return account.standing.terms

    async def _account(self, tenant_id: str) -> _Account:
        if (account := self._in_use(tenant_id)) is not None:
            return account
        # Shielded, because a client that disconnects must not cancel the load that others wait for.
        return await asyncio.shield(self._load(tenant_id))

    def _in_use(self, tenant_id: str) -> _Account | None:
        now = self.now()
        account = self._accounts.get(tenant_id)
        if account is None or now >= account.ends:
            return None
        account.used_at = now
        return account

    def _load(self, tenant_id: str) -> "asyncio.Task[_Account]":
        if (task := self._loading.get(tenant_id)) is None:
            task = self._loading[tenant_id] = asyncio.create_task(self._load_account(tenant_id))
            task.add_done_callback(_retrieve)
        return task

    async def _load_account(self, tenant_id: str) -> _Account:
        try:
            async with self._turn:
                now = self.now()
                standing = await repository.standing_of(self._pool, tenant_id, now)
            account = self._accounts[tenant_id] = _Account(standing, now)
            return account
        finally:
            del self._loading[tenant_id]

    def _unconfirmed(self, key: CycleKey) -> int:
        waiting, sending = self._waiting.get(key), self._sending.get(key)
        return (waiting.units if waiting else 0) + (sending.units if sending else 0)

    def _confirm(self, key: CycleKey, total: int | None, sent: int) -> None:
        account = self._accounts.get(key[0])
        if account is not None and account.key == key:
            known = account.standing
            units = known.units + sent if total is None else total
            account.standing = replace(known, units=units)


def _retrieve(task: "asyncio.Task[_Account]") -> None:
    if not task.cancelled():
        task.exception()  # marks it as retrieved: those who waited have got it, and perhaps nobody waits any more
