"""Lists a user's interactions for people to read."""

from collections.abc import Sequence

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.interactions.tables import Interaction


class InteractionLog:
    """The interactions of one tenant's users."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def page(self, user_id: str, offset: int, limit: int) -> tuple[Sequence[Interaction], int]:
        """The user's interactions, newest first, and how many there are in all."""
        condition = (Interaction.tenant_id == self._tenant_id, Interaction.user_id == user_id)
        total = (await self._session.exec(select(func.count()).select_from(Interaction).where(*condition))).one()
        newest = (col(Interaction.occurred_at).desc(), col(Interaction.id))
        statement = select(Interaction).where(*condition).order_by(*newest).offset(offset).limit(limit)
        return (await self._session.exec(statement)).all(), total
