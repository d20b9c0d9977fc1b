"""Dunning: a tenant whose payment stays past due beyond the grace period falls back to the free plan.

The rule itself is `api.metering.terms.plan_in_force`. It depends on the time alone, so nothing has to run when the
grace period ends. This module writes the change of plan into the audit afterwards.
"""

from api.billing.repository import BillingRepository, tenants_past_grace_period
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction


async def note_ended_grace_periods(database: Database) -> None:
    """Write an audit entry for each tenant whose grace period has ended, unless there is one."""
    async with transaction(database) as session:
        tenants = await tenants_past_grace_period(session)
    for tenant_id in tenants:
        async with transaction(database) as session:
            repository = BillingRepository(session, TenantScope(tenant_id))
            if await repository.lock():
                await repository.note_ended_grace_period()
