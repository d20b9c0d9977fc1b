"""Service ends for who stays past due, at a moment when nobody does anything: the audit is told of it afterwards."""

from sqlalchemy import text

from api.billing.repository import BillingRepository
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.metering.terms import PATIENCE


async def note_lapses(database: Database) -> None:
    """Write down, once, which tenants have come to be on the free plan because their payment stayed away."""
    async with transaction(database) as session:
        found = await (await session.connection()).execute(_PAST_PATIENCE, {"patience": PATIENCE})
        tenants = list(found.scalars())
    for tenant_id in tenants:
        async with transaction(database) as session:
            repository = BillingRepository(session, TenantScope(tenant_id))
            if await repository.lock():
                await repository.note_lapse()


_PAST_PATIENCE = text(
    "SELECT tenant_id FROM subscriptions WHERE status = 'past_due' AND past_due_since <= now() - :patience"
)
