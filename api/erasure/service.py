"""Erasure: of a user that is deleted nothing stays but the tombstone."""

from sqlmodel.ext.asyncio.session import AsyncSession

from api.billing.repository import BillingRepository
from api.database.scope import TenantScope
from api.erasure.repository import ErasureRepository
from api.idempotency.repository import IdempotencyRepository


async def erase_user(session: AsyncSession, scope: TenantScope, user_id: str) -> None:
    """Erase what the user did, was shown and was answered, in the transaction that deletes the user's row.

    Call it after that row is deleted. Files follow with the tenant's next export to the lake.
    """
    await IdempotencyRepository(session, scope).delete_of_user(user_id)
    await BillingRepository(session, scope).forget_user(user_id)
    await ErasureRepository(session, scope).erase(user_id)
