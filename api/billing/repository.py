"""Reads and writes a tenant's billing: its subscription, cap and audit."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import TextClause, text
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from api.audit.service import note_tenant
from api.billing.subscriptions import State
from api.billing.tables import BillingAudit, Subscription, TenantBilling
from api.database.erasure_lock import ERASE_ALONE_IN_TENANT, NO_ERASURE_IN_TENANT
from api.database.origin import SERVICE, Origin, origin_of
from api.database.scope import TenantScope
from api.metering.terms import GRACE_PERIOD
from configs.plans import FREE

STRIPE = "stripe"
_USER = "user:"


@dataclass(frozen=True, slots=True)
class Change:
    """A change to be written into the audit."""

    action: str
    before: Any
    after: Any


class BillingRepository:
    """The subscription, cap and audit of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def lock(self) -> bool:
        """Lock the tenant's billing and its row until the transaction ends. False where there is no such tenant."""
        await self._run(_LOCK)
        return bool((await self._run(_LIVE_TENANT)).first())

    async def plan(self) -> str:
        """The plan that the tenant was created with."""
        return str((await self._run(_PLAN)).scalar_one())

    async def subscription(self) -> Subscription | None:
        return (await self._session.exec(self._own_subscription())).one_or_none()

    async def customer(self, customer_id: str) -> Subscription:
        """The row of the tenant's customer; created for this customer unless there is one."""
        await self._run(_KEEP_CUSTOMER, customer=customer_id)
        return (await self._session.exec(self._own_subscription())).one()

    async def replace_customer(self, gone: str, by: str) -> Subscription:
        """Replace a customer that was deleted at Stripe, and return the row."""
        await self._run(_REPLACE_CUSTOMER, gone=gone, customer=by)
        return (await self._session.exec(self._own_subscription())).one()

    async def put_state(self, state: State, past_due_since: datetime | None, as_of: datetime) -> None:
        """Store the present state of the subscription."""
        await self._run(
            _PUT_STATE,
            subscription=state.subscription_id,
            plan=state.plan_id,
            interval=state.interval,
            status=state.status,
            start=state.current_period_start,
            end=state.current_period_end,
            billing_anchor=state.billing_cycle_anchor,
            anchor=state.anchor,
            cancels=state.cancel_at_period_end,
            past_due_since=past_due_since,
            as_of=as_of,
        )

    async def cap_cents(self) -> int | None:
        """The cap that the tenant has set; None where the plan's cap applies."""
        statement = select(TenantBilling.overage_cap_cents).where(TenantBilling.tenant_id == self._tenant_id)
        return (await self._session.exec(statement)).one_or_none()

    async def put_cap(self, cents: int) -> None:
        await self._run(_PUT_CAP, cents=cents)

    async def note(self, change: Change, user_id: str | None = None, at: datetime | None = None) -> None:
        """Write a change into the audit, made by this user or, without one, by Stripe. at: now where left out.

        A token outlives its user for seconds, so a user who was erased before is written as such.
        """
        await self._run(_NO_ERASURE)
        await self._run(
            _NOTE,
            at=at,
            user=user_id,
            actor=STRIPE if user_id is None else f"{_USER}{user_id}",
            action=change.action,
            before=json.dumps(change.before),
            after=json.dumps(change.after),
        )
        by = Origin(name=STRIPE) if user_id is None else Origin(user_id, address=origin_of(self._session).address)
        await self._note_in_trail(change, by)

    async def note_ended_grace_period(self) -> None:
        """Write into the audit that the grace period has ended, where it has and there is no entry yet."""
        noted = await self._run(_NOTE_ENDED_GRACE_PERIOD, grace_period=GRACE_PERIOD, free=FREE)
        for before, after in noted.all():
            await self._note_in_trail(Change("plan", before, after), SERVICE)

    async def _note_in_trail(self, change: Change, by: Origin) -> None:
        detail = {"before": change.before, "after": change.after}
        await note_tenant(self._session, TenantScope(self._tenant_id), f"{change.action}.changed", detail, by)

    async def audit(self, offset: int, limit: int) -> tuple[list[BillingAudit], int]:
        """A page of the audit, newest first, and how many entries there are."""
        own = BillingAudit.tenant_id == self._tenant_id
        total = (await self._session.exec(select(func.count()).select_from(BillingAudit).where(own))).one()
        statement = select(BillingAudit).where(own).order_by(col(BillingAudit.at).desc(), col(BillingAudit.id))
        return list(await self._session.exec(statement.offset(offset).limit(limit))), total

    async def forget_user(self, user_id: str) -> None:
        """Remove the user from the audit. The changes stay, by the actor "erased".

        Waits for those who are writing a change. Call it after the user's row is deleted, in the same transaction.
        """
        await self._run(_ERASE_ALONE)
        await self._run(_FORGET, actor=f"{_USER}{user_id}")

    def _own_subscription(self) -> SelectOfScalar[Subscription]:
        return select(Subscription).where(Subscription.tenant_id == self._tenant_id)

    async def _run(self, statement: TextClause, **parameters: Any) -> Any:
        return await (await self._session.connection()).execute(statement, {"tenant": self._tenant_id, **parameters})


async def tenant_of(session: AsyncSession, customer_id: str, named: str | None) -> str | None:
    """The tenant of a customer.

    named: the tenant in whose name this installation began a checkout of the customer. It is taken where that tenant
    has no customer yet: our row may have been lost, and a tenant that has paid must get what it paid for.
    """
    found = await (await session.connection()).execute(_BY_CUSTOMER, {"customer": customer_id, "tenant": named})
    tenant_id: str | None = found.scalar()
    return tenant_id


async def tenants_past_grace_period(session: AsyncSession) -> list[str]:
    """Tenants whose grace period has ended and whose audit has no entry of it yet."""
    found = await (await session.connection()).execute(_PAST_GRACE_PERIOD, {"grace_period": GRACE_PERIOD, "free": FREE})
    return list(found.scalars())


def user_of(actor: str) -> str | None:
    """The user of an audit entry; None where it was Stripe, the service, or a user erased since."""
    return actor.removeprefix(_USER) if actor.startswith(_USER) else None


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('billing/' || :tenant, 0))")

_LIVE_TENANT = text("SELECT true FROM tenants WHERE id = :tenant AND deleted_at IS NULL FOR SHARE")

_NO_ERASURE = text(NO_ERASURE_IN_TENANT.replace("%(tenant)s", ":tenant"))
_ERASE_ALONE = text(ERASE_ALONE_IN_TENANT.replace("%(tenant)s", ":tenant"))

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
        current_period_start = :start, current_period_end = :end, billing_cycle_anchor = :billing_anchor,
        anchor = :anchor, cancel_at_period_end = :cancels, past_due_since = :past_due_since, as_of = :as_of
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
    SELECT :tenant, coalesce(:at, clock_timestamp()),
        CASE WHEN CAST(:user AS text) IS NULL OR EXISTS (SELECT FROM users WHERE tenant_id = :tenant AND id = :user)
            THEN :actor ELSE 'erased' END,
        :action, CAST(:before AS jsonb), CAST(:after AS jsonb)
    """
)

_UNNOTED = """
    FROM subscriptions AS late
    WHERE status = 'past_due' AND past_due_since <= now() - :grace_period AND NOT EXISTS (
        SELECT FROM billing_audit AS noted
        WHERE noted.tenant_id = late.tenant_id AND action = 'plan' AND at >= late.past_due_since + :grace_period
            AND after ->> 'planId' = :free
    )
"""

_PAST_GRACE_PERIOD = text(f"SELECT tenant_id {_UNNOTED}")

# Called under `lock`. The entry has the time at which the grace period ended, not the time of this statement.
_NOTE_ENDED_GRACE_PERIOD = text(
    f"""
    INSERT INTO billing_audit (tenant_id, at, actor, action, before, after)
    SELECT tenant_id, past_due_since + :grace_period, 'service', 'plan', jsonb_build_object('planId', plan_id),
        jsonb_build_object('planId', CAST(:free AS text))
    {_UNNOTED} AND tenant_id = :tenant
    RETURNING before, after
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
