"""The rows of users."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, or_, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.sessions.tables import UserSession
from api.tenants.tables import Tenant
from api.users.tables import User

LOGIN_EMAIL = "users_login_email_key"
_FORGET_FAILURES = text("DELETE FROM failed_logins WHERE account = sha256(convert_to(lower(:email), 'UTF8'))")


class AddressTakenError(Exception):
    """A user of this or another tenant logs in with this address."""


class UserTakenError(Exception):
    """The tenant has a user with this id."""


class UserRepository:
    """The users of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def save(self, user: User) -> None:
        """Add or update a user of this tenant. Raises AddressTakenError, UserTakenError."""
        if user.tenant_id != self._tenant_id:
            raise ValueError("a user of another tenant")
        self._session.add(user)
        try:
            await self._session.flush()
        except IntegrityError as error:
            raise (AddressTakenError if LOGIN_EMAIL in str(error.orig) else UserTakenError) from error

    async def find(self, user_id: str, *, lock: bool = False) -> User | None:
        """The user. With `lock`, other transactions cannot change it until this one ends."""
        statement = select(User).where(User.tenant_id == self._tenant_id, User.id == user_id)
        if lock:
            statement = statement.with_for_update().execution_options(populate_existing=True)
        return (await self._session.exec(statement)).one_or_none()

    async def lock_active_admins(self) -> set[str]:
        """Ids of the active administrators. Until the transaction ends, no other can remove one of them."""
        statement = select(User.id).where(
            User.tenant_id == self._tenant_id, User.role == "admin", col(User.is_active).is_(True)
        )
        return set(await self._session.exec(statement.order_by(User.id).with_for_update()))

    async def delete(self, user_id: str) -> User | None:
        """Delete the user's row and, by foreign keys, its sessions and records; None where there is no such user.

        Also deletes the failed logins of an address that only this user can have.
        """
        own = (col(User.tenant_id) == self._tenant_id, col(User.id) == user_id)
        deleted = (await self._session.exec(delete(User).where(*own).returning(User))).scalar_one_or_none()
        if deleted is not None and deleted.password_hash is not None:
            await (await self._session.connection()).execute(_FORGET_FAILURES, {"email": deleted.email})
        return deleted

    async def page(self, search: str | None, offset: int, limit: int) -> tuple[Sequence[User], int]:
        """A page of users by id, and the total. `search` selects by a part of id, email or name, in any case."""
        condition = [col(User.tenant_id) == self._tenant_id]
        if search:
            pattern = "%" + re.sub(r"([\\%_])", r"\\\1", search) + "%"
            condition.append(or_(*(col(part).ilike(pattern) for part in (User.id, User.email, User.name))))
        total = (await self._session.exec(select(func.count()).select_from(User).where(*condition))).one()
        statement = select(User).where(*condition).order_by(User.id).offset(offset).limit(limit)
        return (await self._session.exec(statement)).all(), total


@dataclass(frozen=True, slots=True)
class PasswordAccount:
    """What verifying a password needs of a portal user."""

    tenant_id: str
    user_id: str
    email: str
    password_hash: str
    is_active: bool


_ACCOUNT = """
    SELECT users.tenant_id, users.id, users.email, users.password_hash, users.is_active
    FROM users JOIN tenants ON tenants.id = users.tenant_id
    WHERE users.password_hash IS NOT NULL AND users.email IS NOT NULL AND tenants.deleted_at IS NULL AND
"""


async def find_account(pool: Pool, email: str) -> PasswordAccount | None:
    """The account that logs in with this address. A login names no tenant, so all tenants are searched."""
    return await _account(pool, "lower(users.email) = lower(%s)", email)


async def find_own_account(pool: Pool, scope: TenantScope, user_id: str) -> PasswordAccount | None:
    """The account of this user; None where it has no password."""
    return await _account(pool, "users.tenant_id = %s AND users.id = %s", scope.tenant_id, user_id)


async def _account(pool: Pool, condition: str, *parameters: str) -> PasswordAccount | None:
    async with pool.connection() as connection:
        row = await (await connection.execute(_ACCOUNT + condition, parameters)).fetchone()
    return PasswordAccount(*row) if row else None


async def find_login(session: AsyncSession, email: str) -> User | None:
    """The user who logs in with this address. A login names no tenant, so all tenants are searched."""
    statement = (
        select(User)
        .join(Tenant, col(Tenant.id) == col(User.tenant_id))
        .where(
            func.lower(User.email) == func.lower(email.strip()),
            col(User.password_hash).is_not(None),
            col(Tenant.deleted_at).is_(None),
        )
    )
    return (await session.exec(statement)).one_or_none()


async def find_logged_in(session: AsyncSession, user_session: UserSession) -> User | None:
    """The user of this session; None where the user or its tenant is not active."""
    statement = (
        select(User)
        .join(Tenant, col(Tenant.id) == col(User.tenant_id))
        .where(
            User.tenant_id == user_session.tenant_id,
            User.id == user_session.user_id,
            col(User.is_active).is_(True),
            col(Tenant.deleted_at).is_(None),
        )
    )
    return (await session.exec(statement)).one_or_none()
