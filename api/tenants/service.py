"""Creates, lists and deletes tenants, for the command line."""

import re

from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.service import note_tenant
from api.database.scope import TenantScope
from api.http.problems import Conflict, Invalid, NotFound
from api.tenants.repository import TenantRepository
from api.tenants.tables import Tenant
from configs.plans import plans

ID_PATTERN = re.compile(r"[a-z][a-z0-9-]{1,31}")


async def create_tenant(session: AsyncSession, tenant_id: str, plan: str = "free") -> Tenant:
    """Create a tenant. Raises Invalid for a malformed id or an unknown plan, Conflict for an id that was ever used."""
    if ID_PATTERN.fullmatch(tenant_id) is None:
        raise Invalid.field("id", "2 to 32 lower-case letters, digits and hyphens, a letter first")
    if plan not in plans():
        raise Invalid.field("plan", f"one of {', '.join(plans())}")
    tenants = TenantRepository(session)
    if (existing := await tenants.find(tenant_id)) is not None:
        state = "exists" if existing.deleted_at is None else "was deleted, and an id is never used again"
        raise Conflict(f"The tenant {tenant_id} {state}")
    tenant = Tenant(id=tenant_id, plan=plan)
    await tenants.add(tenant)
    await note_tenant(session, TenantScope(tenant_id), "tenant.created", {"planId": plan})
    return tenant


async def list_tenants(session: AsyncSession) -> list[Tenant]:
    """The tenants that are not deleted, by id."""
    return await TenantRepository(session).list_live()


async def live_tenant(session: AsyncSession, tenant_id: str) -> TenantScope:
    """The scope of an existing tenant. Raises NotFound where the id is unknown or was deleted."""
    tenant = await TenantRepository(session).find(tenant_id)
    if tenant is None or tenant.deleted_at is not None:
        raise NotFound(f"There is no tenant {tenant_id}; create it with `python -m api create-tenant --id {tenant_id}`")
    return TenantScope(tenant.id)


async def delete_tenant(session: AsyncSession, tenant_id: str) -> None:
    """Erase a tenant's data. Its id is never used again, and its keys are refused after 5 seconds at most."""
    await TenantRepository(session).erase(await live_tenant(session, tenant_id))
