"""Ends the subscription of a tenant that is deleted."""

from sqlmodel.ext.asyncio.session import AsyncSession

from api.billing.gateway import Gateway
from api.billing.repository import BillingRepository
from api.billing.subscriptions import ENDED
from api.database.scope import TenantScope
from api.http.problems import Problem
from configs.settings import BillingSettings


async def end_subscription(session: AsyncSession, tenant_id: str) -> str | None:
    """Cancel the tenant's subscription at Stripe, if it has one. Where that fails, returns what is left to do by hand.

    Call it before the tenant's rows are erased, since only they name the subscription.
    """
    known = await BillingRepository(session, TenantScope(tenant_id)).subscription()
    if known is None or known.subscription_id is None or known.status in ENDED:
        return None
    gateway = Gateway(BillingSettings())
    try:
        async with gateway.answering():
            await gateway.cancel(known.subscription_id)
    except Problem as problem:
        return f"cancel the subscription {known.subscription_id} in Stripe's dashboard: {problem.detail}"
    finally:
        await gateway.close()
    return None
