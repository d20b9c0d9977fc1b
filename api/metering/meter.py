"""The meter of an API process: who may go on, and how much was used.

A request asks and counts in memory. Every `TICK_SECONDS` what was counted goes to the database in one statement, and
what the other processes counted comes back in another, with the terms as they are by then: what one process learns, the
others know within a second, and no request waits for it but a tenant's first.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import structlog

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.metering import repository
from api.metering.refusals import budget_refusal
from api.metering.repository import Count, CycleKey, Standing
from api.metering.terms import Entitlement

TICK_SECONDS = 0.4
GENERATIONS_SECONDS = 1.0
IN_USE = timedelta(seconds=30)
"""For how long after a tenant's last request its standing is kept up."""

log = structlog.get_logger(__name__)


class _Account:
    """A tenant in use."""

    __slots__ = ("ends", "key", "refused_from", "standing", "used_at")

    def __init__(self, standing: Standing, used_at: datetime) -> None:
        self.standing = standing
        self.used_at = used_at
        cycle = standing.terms.cycle
        self.key: CycleKey = (standing.terms.tenant_id, cycle.start)
        self.ends = cycle.end
        self.refused_from = standing.terms.refused_from


class Meter:
    """One per process. Counts are lost where the process is killed: those of the last tick, in the tenant's favour."""

    def __init__(self, pool: Pool, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._pool = pool
        self.now = clock
        self._process = uuid4()
        self._sequence = 0
        self._accounts: dict[str, _Account] = {}
        self._loading: dict[str, asyncio.Task[_Account]] = {}
        self._waiting: dict[CycleKey, Count] = {}
        self._sending: dict[CycleKey, Count] = {}  # of the last sequence, until the database has confirmed it
        self._turn = asyncio.Lock()  # so that no standing is read between a flush and its confirmation

    async def admit(self, tenant_id: str, beside: int = 0) -> Entitlement:
        """The terms of the tenant's cycle. Raises QuotaExceeded where its budget is spent, TenantGone.

        beside: units that the request has been admitted for before.
        """
        return self._admit(await self._account(tenant_id), beside)

    def admit_at_once(self, tenant_id: str) -> Entitlement | None:
        """As `admit`; None where the tenant's standing must be read first."""
        account = self._in_use(tenant_id)
        return None if account is None else self._admit(account, 0)

    async def terms_of(self, tenant_id: str) -> Entitlement:
        """The terms of the tenant's cycle, whatever it has used. Raises TenantGone."""
        return (await self._account(tenant_id)).standing.terms

    def count(self, terms: Entitlement, units: int) -> None:
        """Add units to the cycle of these terms, which `admit` gave."""
        key = (terms.tenant_id, terms.cycle.start)
        if (count := self._waiting.get(key)) is None:
            count = self._waiting[key] = Count(terms, 0, None)
        count.terms = terms
        count.units += units
        count.last_request_at = self.now()

    async def flush(self) -> None:
        """What was counted so far is in the database when this returns. Raises what keeps it from there."""
        async with self._turn:
            if self._sending:
                await self._send()
            # Once: under load something waits again whenever an answer comes, and that is for the next tick.
            if self._waiting:
                self._sequence += 1
                self._sending, self._waiting = self._waiting, {}
                await self._send()

    async def _send(self) -> None:
        # Where the answer is lost, the same counts go again under the same number, and are added once.
        added = await repository.add_counts(self._pool, self._process, self._sequence, self._sending.values())
        sent, self._sending = self._sending, {}
        for key, count in sent.items():
            self._confirm(key, added.get(key), count.units)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Meter"]:
        """Inside the block, counts go to the database and standings come from it; leaving it writes the rest."""
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
                log.error("usage was lost: the database does not take it", units=lost, error=repr(error))

    async def _tick(self) -> None:
        if self._sending or self._waiting:
            await self.flush()
        await self._refresh()

    async def _add_generated(self) -> None:
        await repository.add_generated(self._pool, self.now())

    async def _refresh(self) -> None:
        """Read the standings of the tenants in use, and forget the others."""
        now = self.now()
        for tenant_id in [id_ for id_, account in self._accounts.items() if account.used_at < now - IN_USE]:
            del self._accounts[tenant_id]
        if not self._accounts:
            return
        async with self._turn:
            asked = list(self._accounts)
            standings = await repository.standings_of(self._pool, asked, now)
        for tenant_id in asked:
            if (standing := standings.get(tenant_id)) is None:
                self._accounts.pop(tenant_id, None)
            elif (known := self._accounts.get(tenant_id)) is not None:
                self._accounts[tenant_id] = _Account(standing, known.used_at)

    def _admit(self, account: _Account, beside: int) -> Entitlement:
        refused_from = account.refused_from
        if refused_from is not None:
            units = account.standing.units + self._unconfirmed(account.key) + beside
            if units >= refused_from:
                raise budget_refusal(account.standing.terms)
        return account.standing.terms

    async def _account(self, tenant_id: str) -> _Account:
        if (account := self._in_use(tenant_id)) is not None:
            return account
        # Shielded: a client that goes away must not take the load from the others who wait for it.
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
            account.standing = Standing(known.terms, units, known.last_request_at)


def _retrieve(task: "asyncio.Task[_Account]") -> None:
    if not task.cancelled():
        task.exception()  # whoever waited has it; where all of them went away, nobody need be told
