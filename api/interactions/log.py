"""Lists a user's interactions for people to read."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from feature_store.online import ALL_INTERACTIONS


class InteractionLog:
    """The interactions of one tenant's users."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def page(self, user_id: str, offset: int, limit: int) -> tuple[Sequence[Row[Any]], int]:
        """The user's interactions, newest first, and how many there are in all."""
        connection = await self._session.connection()
        of_user = {"tenant": self._tenant_id, "user": user_id}
        total: int = (await connection.execute(_COUNT, of_user)).scalar_one()
        page = await connection.execute(_PAGE, {**of_user, "offset": offset, "limit": limit})
        return page.all(), total


_OF_THE_USER = f"{ALL_INTERACTIONS} WHERE tenant_id = :tenant AND user_id = :user"
_COUNT = text(f"SELECT count(*) FROM {_OF_THE_USER}")  # noqa: S608 - constants
_PAGE = text(
    f"SELECT * FROM {_OF_THE_USER} ORDER BY occurred_at DESC, id OFFSET :offset LIMIT :limit"  # noqa: S608 - constants
)
