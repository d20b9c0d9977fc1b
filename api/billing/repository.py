"""The rows of one tenant's billing."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from api.billing.subscriptions import State
from api.billing.tables import BillingAudit, Subscription, TenantBilling
from api.database.scope import TenantScope
from api.metering.terms import PATIENCE
from configs.plans import FREE

STRIPE = "stripe"
_USER = "user:"


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the audit."""

    action: str
    before: Any
    after: Any


class BillingRepository:
    """The subscription, cap and audit of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def lock(self) -> bool:
        """Until the transaction ends nobody else changes this tenant's billing, nor deletes the tenant; False where
        there is no such tenant.
        """
        await self._run(_LOCK)
        return bool((await self._run(_LIVE_TENANT)).first())

    async def plan(self) -> str:
        """The plan that the tenant was made with."""
        return str((await self._run(_PLAN)).scalar_one())

    async def subscription(self) -> Subscription | None:
        return (await self._session.exec(self._own_subscription())).one_or_none()

    async def customer(self, customer_id: str) -> Subscription:
        """The row of the tenant's customer: made for this one, unless there is one."""
        await self._run(_KEEP_CUSTOMER, customer=customer_id)
        return (await self._session.exec(self._own_subscription())).one()

    async def replace_customer(self, gone: str, by: str) -> Subscription:
        """The row of the tenant's customer, where this one is gone made that of another."""
        await self._run(_REPLACE_CUSTOMER, gone=gone, customer=by)
        return (await self._session.exec(self._own_subscription())).one()

    async def put_state(self, state: State, past_due_since: datetime | None, as_of: datetime) -> None:
        """Write the newest state of the subscription."""
        await self._run(
            _PUT_STATE,
            subscription=state.subscription_id,
            plan=state.plan_id,
            interval=state.interval,
            status=state.status,
            start=state.current_period_start,
            end=state.current_period_end,
            anchor=state.billing_cycle_anchor,
            cancels=state.cancel_at_period_end,
            past_due_since=past_due_since,
            as_of=as_of,
        )

    async def cap_cents(self) -> int | None:
        """The cap that the tenant has set; None where its plan's counts."""
        statement = select(TenantBilling.overage_cap_cents).where(TenantBilling.tenant_id == self._tenant_id)
        return (await self._session.exec(statement)).one_or_none()

    async def put_cap(self, cents: int) -> None:
        await self._run(_PUT_CAP, cents=cents)

    async def note(self, change: Change, user_id: str | None = None) -> None:
        """Add to the audit: by this user, or by Stripe."""
        await self._run(
            _NOTE,
            actor=STRIPE if user_id is None else f"{_USER}{user_id}",
            action=change.action,
            before=json.dumps(change.before),
            after=json.dumps(change.after),
        )

    async def note_lapse(self) -> None:
        """Add that the plan has ended because a payment stayed away, where that is so and not written down yet."""
        await self._run(_NOTE_LAPSE, patience=PATIENCE, free=FREE)

    async def audit(self, offset: int, limit: int) -> tuple[list[BillingAudit], int]:
        """A page of the audit, newest first, and how many entries there are."""
        own = BillingAudit.tenant_id == self._tenant_id
        total = (await self._session.exec(select(func.count()).select_from(BillingAudit).where(own))).one()
        statement = select(BillingAudit).where(own).order_by(col(BillingAudit.at).desc(), col(BillingAudit.id))
        return list(await self._session.exec(statement.offset(offset).limit(limit))), total

    async def forget_user(self, user_id: str) -> None:
        """Leave in the audit that somebody did it, and no longer who."""
        await self._run(_FORGET, actor=f"{_USER}{user_id}")

    def _own_subscription(self) -> SelectOfScalar[Subscription]:
        return select(Subscription).where(Subscription.tenant_id == self._tenant_id)

    async def _run(self, statement: TextClause, **parameters: Any) -> Any:
        return await (await self._session.connection()).execute(statement, {"tenant": self._tenant_id, **parameters})


async def tenant_of(session: AsyncSession, customer_id: str, named: str | None) -> str | None:
    """The tenant whose customer this is.

    named: the tenant that Stripe names beside the customer. It is believed where that tenant has no customer yet: its
    row may have been lost, and whoever paid must get what was paid for.
    """
    found = await (await session.connection()).execute(_BY_CUSTOMER, {"customer": customer_id, "tenant": named})
    tenant_id: str | None = found.scalar()
    return tenant_id


async def lapsed_tenants(session: AsyncSession) -> list[str]:
    """Tenants whose plan has ended because a payment stayed away, of which the audit does not know yet."""
    found = await (await session.connection()).execute(_LAPSED, {"patience": PATIENCE, "free": FREE})
    return list(found.scalars())


def user_of(actor: str) -> str | None:
    """The user behind an entry of the audit; None where it was Stripe, or somebody who was erased."""
    return actor.removeprefix(_USER) if actor.startswith(_USER) else None


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('billing/' || :tenant, 0))")

_LIVE_TENANT = text("SELECT true FROM tenants WHERE id = :tenant AND deleted_at IS NULL FOR SHARE")

_PLAN = text("SELECT plan FROM tenants WHERE id = :tenant")

_KEEP_CUSTOMER = text(
    """
    INSERT INTO subscriptions (tenant_id, customer_id) VALUES (:tenant, :customer) ON CONFLICT (tenant_id) DO NOTHING
    """
)

_REPLACE_CUSTOMER = text(
    "UPDATE subscriptions SET customer_id = :customer WHERE tenant_id = :tenant AND customer_id = :gone"
)

_PUT_STATE = text(
    """
    UPDATE subscriptions
    SET subscription_id = :subscription, plan_id = :plan, interval = :interval, status = :status,
        current_period_start = :start, current_period_end = :end, billing_cycle_anchor = :anchor,
        cancel_at_period_end = :cancels, past_due_since = :past_due_since, as_of = :as_of
    WHERE tenant_id = :tenant
    """
)

_PUT_CAP = text(
    """
    INSERT INTO billing_settings (tenant_id, overage_cap_cents) VALUES (:tenant, :cents)
    ON CONFLICT (tenant_id) DO UPDATE SET overage_cap_cents = excluded.overage_cap_cents, changed_at = now()
    """
)

_NOTE = text(
    """
    INSERT INTO billing_audit (tenant_id, at, actor, action, before, after)
    VALUES (:tenant, clock_timestamp(), :actor, :action, CAST(:before AS jsonb), CAST(:after AS jsonb))
    """
)

_UNNOTED = """
    FROM subscriptions AS late
    WHERE status = 'past_due' AND past_due_since <= now() - :patience AND NOT EXISTS (
        SELECT FROM billing_audit AS noted
        WHERE noted.tenant_id = late.tenant_id AND action = 'plan' AND at >= late.past_due_since + :patience
            AND after ->> 'planId' = :free
    )
"""

_LAPSED = text(f"SELECT tenant_id {_UNNOTED}")

# Under the tenant's lock: `lock`. The moment is that of the lapse, not that of this look.
_NOTE_LAPSE = text(
    f"""
    INSERT INTO billing_audit (tenant_id, at, actor, action, before, after)
    SELECT tenant_id, past_due_since + :patience, 'service', 'plan', jsonb_build_object('planId', plan_id),
        jsonb_build_object('planId', CAST(:free AS text))
    {_UNNOTED} AND tenant_id = :tenant
    """
)

_FORGET = text("UPDATE billing_audit SET actor = 'erased' WHERE tenant_id = :tenant AND actor = :actor")

_BY_CUSTOMER = text(
    """
    SELECT tenants.id
    FROM tenants LEFT JOIN subscriptions AS known ON known.tenant_id = tenants.id
    WHERE tenants.deleted_at IS NULL
        AND (known.customer_id = :customer OR (known.customer_id IS NULL AND tenants.id = :tenant))
    ORDER BY known.customer_id IS NULL LIMIT 1
    """
)
