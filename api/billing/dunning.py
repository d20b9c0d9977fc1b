"""Service ends for who stays past due, at a moment when nobody does anything: the audit is told of it afterwards."""

from api.billing.repository import BillingRepository, lapsed_tenants
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction


async def note_lapses(database: Database) -> None:
    """Write down, once, which tenants have come to be on the free plan because their payment stayed away."""
    async with transaction(database) as session:
        tenants = await lapsed_tenants(session)
    for tenant_id in tenants:
        async with transaction(database) as session:
            repository = BillingRepository(session, TenantScope(tenant_id))
            if await repository.lock():
                await repository.note_lapse()
