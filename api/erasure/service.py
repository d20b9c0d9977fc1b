"""Erasure of a deleted user: only the tombstone stays."""

from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit import service as audit
from api.billing.repository import BillingRepository
from api.database.scope import TenantScope
from api.erasure.journal import ErasureJournal
from api.erasure.repository import ErasureRepository
from api.idempotency.repository import IdempotencyRepository
from api.settings.service import forget_address


async def erase_user(
    session: AsyncSession, scope: TenantScope, user_id: str, journal: ErasureJournal, email: str | None = None
) -> None:
    """Erase the user's interactions, impressions and idempotency records, its name in the audit trails, and its
    address among those that get alerts.

    Call it after the user's row is deleted, in the same transaction. The tenant's next export erases the user from the
    files of the lake. Raises OSError where the journal cannot be written; the transaction must not commit then.
    """
    await IdempotencyRepository(session, scope).delete_of_user(user_id)
    await BillingRepository(session, scope).forget_user(user_id)
    await forget_address(session, scope, email)
    erased_at = await ErasureRepository(session, scope).erase(user_id)
    await audit.forget_user(session, scope, user_id, email)
    await audit.note_user(session, scope, "user.erased", user_id)
    await journal.record(scope.tenant_id, user_id, erased_at)
