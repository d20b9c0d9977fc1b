"""Random orders of clicks, payments, usage and time, through the real services and the stand-in for Stripe.

What is owed at any moment, and what is charged for each month, is what a model of a few lines says, to the cent. Each
sequence has its own tenant and customer. The stand-in's clock stands still between the steps, and the services are told
its time. What Stripe says is stored twice at once, and an older answer of Stripe after it, as replayed and late events
do.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any

import pytest
from dateutil.relativedelta import relativedelta

from api.billing.gateway import Gateway, cycle_name
from api.billing.overage import report_overage
from api.billing.service import set_cap
from api.billing.synchronise import FetchedSubscriptions, store_subscription
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.http.problems import Conflict
from api.metering.meter import Meter
from api.metering.repository import standing_of
from tests.api.conftest import Tenants
from tests.fixtures.standin import FAILING_CARD, GOOD_CARD, StandIn, running_standin

BEGIN = "2024-01-31T10:00:00Z"
NEVER, GRACE = datetime.min.replace(tzinfo=UTC), timedelta(days=7)
PLANS = {  # limit, cents of a unit, cents of the cap
    "free": (1_000, None, 0),
    "plan-starter": (10_000, Fraction(60, 100), 5_000),
    "plan-growth": (100_000, Fraction(20, 100), 50_000),
}
Month = tuple[datetime | None, datetime, datetime]
"""Anchor, start, end."""


@dataclass
class Model:
    """What API-DECISIONS says about months and what is owed."""

    held: list[tuple[datetime, str, datetime | None]] = field(default_factory=lambda: [(NEVER, "free", None)])
    used: Counter[Month] = field(default_factory=Counter)
    least: Counter[Month] = field(default_factory=Counter)
    caps: list[tuple[datetime, int | None]] = field(default_factory=lambda: [(NEVER, None)])
    over: dict[datetime | None, datetime] = field(default_factory=dict)  # anchor -> end of its subscription

    def month(self, now: datetime) -> Month:
        anchor = [anchor for since, _, anchor in self.held if since <= now][-1]
        first = anchor or datetime(2000, 1, 1, tzinfo=UTC)
        months = next(n for n in range(1_000) if first + relativedelta(months=n + 1) > now)
        return anchor, first + relativedelta(months=months), first + relativedelta(months=months + 1)

    def end(self, month: Month) -> datetime:
        return min(month[2], self.over.get(month[0], month[2]))

    def cap(self, month: Month, plan: str, at: datetime) -> int:
        own = [cents for since, cents in self.caps if since < at][-1]
        if PLANS[plan][1] is None:
            return self.least[month]
        return max(self.least[month], PLANS[plan][2] if own is None else own)

    def owed(self, month: Month, now: datetime) -> tuple[int, int]:
        """Limit, and cents owed."""
        limit, cap, cost = self.cost(month, now)
        return limit, min(cap, cost)

    def cost(self, month: Month, now: datetime) -> tuple[int, int, int]:
        """Limit, cap, and cents that the overage costs without it."""
        anchor, start, end = month
        known = [each for each in self.held if each[0] <= now]
        spans = [
            (plan, (min(until, end) - max(since, start)) // timedelta(seconds=1))
            for (since, plan, of), (until, *_) in pairwise([*known, (end,)])
            if of == anchor and min(until, end) > max(since, start)
        ]
        limit = sum(PLANS[plan][0] * time for plan, time in spans) // sum(time for _, time in spans)
        sold = [(PLANS[plan][1], time) for plan, time in spans if PLANS[plan][1] is not None]
        price = sum(each * time for each, time in sold) / sum(time for _, time in sold) if sold else 0  # type: ignore[operator]
        cap = self.cap(month, spans[-1][0], now + timedelta(microseconds=1))
        return limit, cap, floor(price * max(0, self.used[month] - limit))

    def open(self, now: datetime) -> list[Month]:
        return [month for month in self.used if self.end(month) > now]

    def hold(self, now: datetime, since: datetime, plan: str, anchor: datetime | None) -> None:
        if [each[1:] for each in self.held if each[0] <= now][-1] == (plan, anchor):
            return
        opened, before = self.open(now), {}
        for month in opened:
            _, cap, cost = self.cost(month, now)
            self.least[month] = max(self.least[month], min(cap, cost))
            before[month] = cap
        self.held = [*(each for each in self.held if each[0] < since), (since, plan, anchor)]
        for month in opened:
            self.least[month] = max(self.least[month], min(before[month], self.cost(month, now)[2]))


class Customer:
    """A tenant whose administrator, card and users do as the random numbers say."""

    def __init__(self, seed: int, url: str, standin: StandIn) -> None:
        self.random = random.Random(seed)
        self.standin = standin
        self.library = standin.library
        self.tenant = Tenants(url).create(f"owed-{seed}", "free")
        self.scope = TenantScope(self.tenant)
        self.customer = self.library.customers.create({"payment_method": "pm_card_visa"}).id
        standin.use_card(self.customer, GOOD_CARD)
        standin.dunning(self.random.choice(["canceled", "unpaid"]))
        self.database, self.gateway = Database(url, pool_min=2), Gateway(standin.settings())
        self.model = Model()
        self.synced: datetime | None = None
        self.late: datetime | None = None
        self.earlier: FetchedSubscriptions | None = None
        self.prices = {
            (plan, interval): self.library.prices.list({"lookup_keys": [f"{plan}-{interval}"]}).data[0].id
            for plan in ("plan-starter", "plan-growth")
            for interval in ("monthly", "annual")
        }

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.standin.now(), UTC)

    def live(self) -> Any:
        found = self.library.subscriptions.list({"customer": self.customer, "status": "all"}).data
        return next((each for each in found if each.status in ("active", "past_due")), None)

    async def run(self, steps: int) -> None:
        await self.database.open()
        try:
            self.subscribe()
            await self.sync()
            for _ in range(steps):
                self.standin.advance(self.random.choice([1, 60, 3_600, 86_400, 5 * 86_400, 17 * 86_400]))
                await self.sync()
                clicks = [*3 * [self.change], self.subscribe, self.cancel, self.pay_or_not, self.cap]
                action: Any = self.random.choice([*clicks, *4 * [self.use], self.report])
                done = action()
                if done is not None:
                    await done
                self.standin.advance(1)
                await self.sync()
                await self.compare()
            self.standin.advance(62 * 86_400)
            await self.sync()
            await self.report()
            await self.compare_charges()
        finally:
            await self.gateway.close()
            await self.database.close()

    def subscribe(self) -> None:
        if self.live() is None:
            price = self.random.choice(list(self.prices.values()))
            self.library.subscriptions.create({"customer": self.customer, "items": [{"price": price}]})

    def change(self) -> None:
        """Another plan, another interval, both or none."""
        if (found := self.live()) is not None:
            item = {"id": found["items"].data[0].id, "price": self.random.choice(list(self.prices.values()))}
            self.library.subscriptions.update(found.id, {"items": [item]})

    def cancel(self) -> None:
        if (found := self.live()) is not None:
            if self.random.random() < 0.3:
                self.library.subscriptions.cancel(found.id)
            else:
                self.library.subscriptions.update(found.id, {"cancel_at_period_end": True})

    def pay_or_not(self) -> None:
        """Another card: one that fails, or a good one that pays what is open."""
        if self.random.random() < 0.6:
            self.standin.use_card(self.customer, FAILING_CARD)
            return
        self.standin.use_card(self.customer, GOOD_CARD)
        for invoice in self.library.invoices.list({"customer": self.customer, "status": "open"}).data:
            self.library.invoices.pay(invoice.id)

    async def use(self) -> None:
        units = self.random.choice([700, 5_000, 9_000, 60_000, 150_000])
        now = self.now
        meter = Meter(self.database.pool, clock=lambda: now)
        meter.count(await meter.terms_of(self.tenant), units)
        await meter.flush()
        self.model.used[self.model.month(now)] += units

    async def cap(self) -> None:
        cents, now = self.random.choice([0, 1, 1_234, 40_000, 10_000_000]), self.now
        owed = [max(self.model.owed(month, now)[1], self.model.least[month]) for month in self.model.open(now)]
        try:
            async with transaction(self.database) as session:
                await set_cap(session, self.scope, "boss", Decimal(cents) / 100, now)
        except Conflict:
            assert cents < max(owed)
        else:
            assert cents >= max(owed, default=0)
            self.model.caps.append((now, cents))

    async def report(self) -> None:
        await report_overage(self.database, self.gateway, self.now, wait=True)

    async def sync(self) -> None:
        """Store what Stripe says, as the webhook does, and tell the model."""
        now = self.now
        if self.synced == now:
            return
        fetched = FetchedSubscriptions(self.customer, await self.gateway.subscriptions(self.customer), now)
        await asyncio.gather(self.store(fetched), self.store(fetched))
        if self.earlier is not None:
            await self.store(self.earlier)
        self.earlier = fetched
        found = sorted(
            fetched.subscriptions,
            key=lambda each: (
                0 if each.status in ("active", "past_due") else 2 if each.status.startswith("c") else 1,
                -each.created,
            ),
        )
        if found:
            self.observe(now, found[0], found)
        self.synced = now

    async def store(self, fetched: FetchedSubscriptions) -> None:
        async with transaction(self.database) as session:
            await store_subscription(session, self.scope, fetched)

    def observe(self, now: datetime, counted: Any, found: list[Any]) -> None:
        if self.late is not None and self.late + GRACE <= now and self.model.held[-1][1] != "free":
            self.model.held.append((self.late + GRACE, "free", None))
        self.late = (self.late or now) if counted.status == "past_due" else None
        serves = counted.status == "active" or (self.late is not None and now < self.late + GRACE)
        anchor = datetime.fromtimestamp(counted.start_date, UTC)
        plan = counted["items"].data[0].price.lookup_key.rpartition("-")[0]
        ended = {
            datetime.fromtimestamp(each.start_date, UTC): max(
                self.synced or NEVER, datetime.fromtimestamp(each.ended_at, UTC)
            )
            for each in found
            if each.status == "canceled"
        }
        since = ended.get(anchor, now)
        self.model.hold(now, since, plan if serves else "free", anchor if serves else None)
        for of, at in ended.items():
            self.model.over.setdefault(of, at)

    async def compare(self) -> None:
        """The month of this moment: its usage, limit and what is owed by now."""
        now = self.now
        month = self.model.month(now)
        standing = await standing_of(self.database.pool, self.tenant, now)
        terms = standing.terms
        assert (terms.anchor, *terms.cycle) == month
        found = (standing.units, terms.request_limit, terms.charged_cents(standing.units))
        assert found == (self.model.used[month], *self.model.owed(month, now))

    async def compare_charges(self) -> None:
        """Every month: what was charged at Stripe, and by our table."""
        owed = {cycle_name(month[1]): self.model.owed(month, self.model.end(month))[1] for month in self.model.used}
        items = self.library.invoice_items.list({"customer": self.customer, "limit": 100}).data
        charged = {item.metadata["cycle"]: item.amount for item in items if "cycle" in item.metadata}
        assert charged == {cycle: cents for cycle, cents in owed.items() if cents}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: Any) -> Iterator[StandIn]:
    with running_standin(tmp_path_factory.mktemp("owed"), None, "--frozen", "--at", BEGIN) as account:
        yield account


@pytest.mark.parametrize("seed", range(5))
def test_what_is_owed_is_what_the_model_says(seed: int, module_database_url: str, frozen: StandIn) -> None:
    asyncio.run(Customer(seed, module_database_url, frozen).run(steps=30))
