"""Users: portal users have a password and can log in; end users have an id that a backend chose."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic.alias_generators import to_camel
from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.service import note_user
from api.database.engine import OneConnection
from api.database.scope import TenantScope
from api.database.session import allow_statements
from api.erasure.journal import ErasureJournal
from api.erasure.service import erase_user
from api.http.disk import needing_disk
from api.http.principal import UserPrincipal
from api.http.problems import Conflict, Forbidden, Invalid, NotFound
from api.metering.refusals import user_refusal
from api.sessions.repository import SessionRepository
from api.users.addresses import is_address
from api.users.passwords import Passwords
from api.users.quota import users_over_quota
from api.users.repository import AddressTakenError, UserRepository, UserTakenError, find_login
from api.users.schemas import NewUser, UserChanges
from api.users.tables import User
from configs.plans import Plan

MAX_METADATA = 10_000
ERASURE_SECONDS = 600.0
"""That a statement of an erasure may take. The user with the most interactions must be erasable, too."""


class AddressTaken(Conflict):
    """409: a user has this address. Which user, and of which tenant, is not told."""

    def __init__(self) -> None:
        super().__init__("This address cannot be used")


class InvalidAddress(Invalid):
    """400: the text is no email address."""

    def __init__(self) -> None:
        message = "an address like name@example.com"
        super().__init__(f"email: {message}", [{"field": "email", "message": message}])


async def list_users(
    session: AsyncSession, scope: TenantScope, search: str | None, offset: int, limit: int
) -> tuple[Sequence[User], int]:
    """A page of the tenant's users, and the total."""
    return await UserRepository(session, scope).page(search, offset, limit)


async def get_user(session: AsyncSession, scope: TenantScope, user_id: str) -> User:
    """The user. Raises NotFound."""
    return _found(await UserRepository(session, scope).find(user_id))


async def see_user(session: AsyncSession, caller: UserPrincipal, user_id: str) -> User:
    """The user, if it is the caller or the caller is an administrator. Raises NotFound, Forbidden."""
    user = await get_user(session, caller.scope, user_id)
    if user.id != caller.user_id and not caller.is_admin:
        raise Forbidden("You may read your own user only")
    return user


async def create_user(
    session: AsyncSession,
    passwords: Passwords,
    scope: TenantScope,
    new: NewUser,
    plan: Plan | None = None,
    *,
    by_admin: bool = True,
) -> User:
    """Create a user. Raises Invalid, WeakPassword, AddressTaken, and Conflict where the id is taken.

    With a password it begins the session's transaction anew, so call it before anything is written.

    plan: limits the number of end users, who have no password. Raises QuotaExceeded where the limit is reached.
    by_admin: an administrator vouches for the address, which of a user who registers nobody has confirmed.
    """
    password_hash = None
    if new.password is not None:
        # Hashes wait for each other, and meanwhile others need the connection. Of equal requests with one
        # `Idempotency-Key`, several may hash then; the first that commits is the only one that has an effect.
        await session.rollback()
        password_hash = await passwords.hash(new.password, new.email, new.name, scope.tenant_id)
    user = User(
        tenant_id=scope.tenant_id,
        id=new.id or str(uuid4()),
        email=address(new.email),
        email_confirmed_at=datetime.now(UTC) if by_admin and new.email is not None else None,
        name=new.name,
        role=new.role,
        role_pinned=True,
        is_active=new.is_active,
        password_hash=password_hash,
    )
    if plan is not None and plan.user_limit is not None and new.password is None:
        async with OneConnection(session).connection() as connection:
            if await users_over_quota(connection, scope, [user.id], plan.user_limit):
                raise user_refusal(plan)
    await _save(session, scope, user)
    created = {"role": user.role, "isActive": user.is_active, "hasPassword": user.password_hash is not None}
    await note_user(session, scope, "user.created", user.id, created)
    return user


async def create_admin(
    session: AsyncSession, passwords: Passwords, scope: TenantScope, email: str, password: str
) -> User:
    """Create an administrator who can log in. Raises the errors of `create_user`."""
    return await create_user(session, passwords, scope, NewUser(email=email, role="admin", password=password))


async def update_user(
    session: AsyncSession, passwords: Passwords, scope: TenantScope, user_id: str, changes: UserChanges
) -> User:
    """Change the attributes that were sent, and return the user.

    Raises NotFound, Invalid, WeakPassword, AddressTaken, and Conflict where the tenant would be left without an active
    administrator.
    """
    new_hash = None
    if changes.password is not None:
        known = await get_user(session, scope, user_id)
        email, name = changes.email or known.email, changes.name or known.name
        await session.rollback()  # hashes wait for each other, and meanwhile others need the connection
        new_hash = await passwords.hash(changes.password, email, name, scope.tenant_id)
    if changes.role == "user" or changes.is_active is False:
        await _require_another_admin(session, scope, user_id)
    user = _found(await UserRepository(session, scope).find(user_id, lock=True))
    if "email" in changes.model_fields_set:
        set_address(user, changes.email, by_admin=True)
    if "name" in changes.model_fields_set:
        user.name = changes.name
    before = (user.role, user.is_active)
    if changes.role is not None and changes.role != user.role:
        user.role, user.role_pinned = changes.role, True
    if changes.is_active is not None:
        user.is_active = changes.is_active
    if new_hash is not None:
        user.password_hash = new_hash
    if user.email is None and user.password_hash is not None:
        raise Invalid.field("email", "a user with a password needs one")
    await save_user(session, scope, user)
    if changes.password is not None or user.is_active != before[1]:
        await end_sessions(session, user)
    elif user.role != before[0]:
        await SessionRepository(session, scope).revoke_refresh_tokens(user_id)
    await _note_update(session, scope, user, changes, before_role=before[0])
    return user


async def toggle_status(session: AsyncSession, scope: TenantScope, user_id: str) -> User:
    """Deactivate an active user, or activate an inactive one. Raises NotFound, Conflict for the last active admin."""
    repository = UserRepository(session, scope)
    admins = await repository.lock_active_admins()
    user = _found(await repository.find(user_id, lock=True))
    if user.is_active and admins == {user_id}:
        raise _last_admin()
    user.is_active = not user.is_active
    await save_user(session, scope, user)
    await end_sessions(session, user)
    await note_user(session, scope, "user.changed", user_id, {"isActive": user.is_active})
    return user


async def delete_user(session: AsyncSession, scope: TenantScope, user_id: str, journal: ErasureJournal) -> None:
    """Delete the user and erase all data about it. Raises NotFound, and Conflict for the last active administrator."""
    await allow_statements(session, ERASURE_SECONDS)
    await _require_another_admin(session, scope, user_id)
    deleted = await UserRepository(session, scope).delete(user_id)
    if deleted is None:
        raise _no_such_user()
    await note_user(session, scope, "user.deleted", user_id, {"role": deleted.role})
    with needing_disk():
        await erase_user(session, scope, user_id, journal, deleted.email)


async def set_password(session: AsyncSession, passwords: Passwords, email: str, password: str) -> None:
    """Change the password of the portal user with this address. Raises NotFound, WeakPassword."""
    user = await find_login(session, email)
    if user is None:
        raise NotFound(f"No user logs in as {email}")
    user.password_hash = await passwords.hash(password, user.email, user.name, user.tenant_id)
    await save_user(session, TenantScope(user.tenant_id), user)
    await end_sessions(session, user)
    await note_user(session, TenantScope(user.tenant_id), "password.changed", user.id)


async def end_sessions(session: AsyncSession, user: User, keep: UUID | None = None) -> None:
    """End the user's sessions after a change of password or activity, and revoke all its refresh tokens.

    Access tokens are refused after 5 seconds at most.
    keep: a session whose access token stays valid until it expires. Its refresh token is revoked too.
    """
    sessions = SessionRepository(session, TenantScope(user.tenant_id))
    await sessions.end(user.id, except_for=keep)
    await sessions.revoke_refresh_tokens(user.id)


async def save_user(session: AsyncSession, scope: TenantScope, user: User) -> None:
    """Write a changed user. Raises Conflict where its id or address is taken."""
    user.updated_at = datetime.now(UTC)
    await _save(session, scope, user)


async def _require_another_admin(session: AsyncSession, scope: TenantScope, user_id: str) -> None:
    if await UserRepository(session, scope).lock_active_admins() == {user_id}:
        raise _last_admin()


async def _save(session: AsyncSession, scope: TenantScope, user: User) -> None:
    try:
        await UserRepository(session, scope).save(user)
    except AddressTakenError as error:
        raise AddressTaken from error
    except UserTakenError as error:
        raise Conflict("There is a user with this id already") from error


def address(email: str | None) -> str | None:
    """The address without surrounding white space. Raises InvalidAddress."""
    if email is None:
        return None
    email = email.strip()
    if not is_address(email):
        raise InvalidAddress
    return email


def set_address(user: User, email: str | None, *, by_admin: bool) -> bool:
    """Change the address; unless an administrator does, nobody has confirmed the new one.

    Returns whether it is another one. Raises InvalidAddress.
    """
    changed = address(email)
    if changed == user.email:
        return False
    user.email = changed
    user.email_confirmed_at = datetime.now(UTC) if by_admin and changed is not None else None
    return True


def too_long(metadata: dict[str, Any]) -> str | None:
    """Why this metadata is too long to store; None where it is not."""
    return f"longer than {MAX_METADATA} characters" if len(repr(metadata)) > MAX_METADATA else None


async def _note_update(
    session: AsyncSession, scope: TenantScope, user: User, changes: UserChanges, before_role: str
) -> None:
    """Write into the audit trail what was changed, without the values of personal data."""
    if user.role != before_role:
        await note_user(session, scope, "role.changed", user.id, {"before": before_role, "after": user.role})
    if changes.password is not None:
        await note_user(session, scope, "password.changed", user.id)
    if fields := changes.model_fields_set & {"email", "name", "is_active"}:
        detail: dict[str, Any] = {"changed": sorted(to_camel(name) for name in fields)}
        if "is_active" in fields:
            detail["isActive"] = user.is_active
        await note_user(session, scope, "user.changed", user.id, detail)


def _found(user: User | None) -> User:
    if user is None:
        raise _no_such_user()
    return user


def _no_such_user() -> NotFound:
    return NotFound("There is no such user")


def _last_admin() -> Conflict:
    return Conflict("This is the tenant's last active administrator")
