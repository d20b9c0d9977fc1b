"""The audit trail for other domains: they note what they do, in the transaction in which they do it."""

from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.repository import AuditEvent, AuditFilter, AuditRepository, AuditTrail
from api.audit.schemas import AuditRecord
from api.database.engine import OneConnection
from api.database.origin import Origin, origin_of
from api.database.scope import TenantScope
from api.http.problems import Invalid
from api.http.schemas import PageParams


async def note_user(
    session: AsyncSession, scope: TenantScope, action: str, user_id: str, detail: dict[str, Any] | None = None
) -> None:
    """Write into the tenant's audit trail what was done to a user.

    Who did it, the transaction says (`api.database.origin`). Call it last: no user is erased anywhere until the
    transaction ends.
    """
    await _note(session, scope, AuditEvent(action, user_id, "user", detail))


async def note_key(
    session: AsyncSession, scope: TenantScope, action: str, key_id: UUID, detail: dict[str, Any]
) -> None:
    """Write into the trail what was done to an API key."""
    await _note(session, scope, AuditEvent(action, str(key_id), "key", detail))


async def note_scenario(
    session: AsyncSession, scope: TenantScope, action: str, scenario_id: str, detail: dict[str, Any]
) -> None:
    """Write into the trail what was done to a scenario. The detail holds no text that people write."""
    await _note(session, scope, AuditEvent(action, scenario_id, "scenario", detail))


async def last_scenario_version(session: AsyncSession, scope: TenantScope, scenario_id: str) -> int:
    """The version in the newest entry about a scenario with this id, also of a deleted one; 0 without an entry."""
    return await AuditRepository(session, scope).last_version("scenario", scenario_id)


async def note_tenant(
    session: AsyncSession, scope: TenantScope, action: str, detail: dict[str, Any], by: Origin | None = None
) -> None:
    """Write into the trail what was done to the tenant itself, such as its plan.

    by: who did it, where it was not the party behind the transaction.
    """
    await _note(session, scope, AuditEvent(action, scope.tenant_id, "tenant", detail), by)


async def note_login(session: AsyncSession, scope: TenantScope, user_id: str) -> None:
    """Write into the trail that the user has logged in. The caller holds a lock on the user's row."""
    await session.flush()
    async with OneConnection(session).connection() as connection:
        await AuditTrail(connection, scope).add_login(user_id, origin_of(session))


async def forget_user(session: AsyncSession, scope: TenantScope, user_id: str, email: str | None) -> None:
    """Remove an erased user from the trail. The user's row is deleted before, in the same transaction."""
    async with OneConnection(session).connection() as connection:
        await AuditTrail(connection, scope).forget_user(user_id, email)


async def list_entries(
    session: AsyncSession, scope: TenantScope, wanted: AuditFilter, page: PageParams
) -> tuple[list[AuditRecord], int]:
    """A page of the tenant's trail, newest first, and how many entries there are. Raises Invalid for an empty span."""
    if wanted.since is not None and wanted.until is not None and wanted.until <= wanted.since:
        raise Invalid.field("to", "must be later than `from`")
    rows, total = await AuditRepository(session, scope).page(wanted, page.offset, page.page_size)
    return [AuditRecord.model_validate(row) for row in rows], total


async def _note(session: AsyncSession, scope: TenantScope, event: AuditEvent, by: Origin | None = None) -> None:
    await session.flush()  # whether the users it names exist, the statement reads from the database
    async with OneConnection(session).connection() as connection:
        await AuditTrail(connection, scope).add(event, by or origin_of(session))
