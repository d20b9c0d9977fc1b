"""Logging in, staying logged in, and leaving."""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth.problems import (
    Delayed,
    ManagedElsewhere,
    RefreshRefused,
    RegistrationClosed,
    SamePassword,
    WrongCredentials,
)
from api.auth.repository import FailedLogins
from api.auth.tokens import AccessToken, Tokens
from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.principal import UserPrincipal
from api.http.problems import Invalid, Unauthorized
from api.http.schemas import MAX_TEXT
from api.sessions.repository import SessionRepository, revoke_if_reused, rotate
from api.sessions.tables import UserSession
from api.tenants.repository import TenantRepository
from api.users import service as users
from api.users.passwords import Passwords
from api.users.repository import UserRepository, find_logged_in, find_login
from api.users.schemas import NewUser
from api.users.tables import User
from configs.settings import AuthSettings

Which = Literal["global", "local", "others"]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login gives."""

    user: User
    access: AccessToken
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Logins:
    """Everything about logins, in the transaction of one request. Failed ones are counted on the pool, for good."""

    session: AsyncSession
    pool: Pool
    passwords: Passwords
    tokens: Tokens
    settings: AuthSettings

    async def log_in(self, email: str, password: str, *, refreshable: bool) -> Grant:
        """Begin a session. Raises WrongCredentials, Delayed."""
        email = email.strip()
        user = await self._checked(email, await find_login(self.session, email), password)
        checked = user.password_hash
        # To check a password takes long enough for it to be changed, or for the user to be shut out or deleted.
        now = await UserRepository(self.session, TenantScope(user.tenant_id)).find(user.id, lock=True)
        if now is None or not now.is_active or now.password_hash != checked:
            raise WrongCredentials
        return await self._begin(now, refreshable)

    async def register(
        self, email: str, name: str | None, password: str, metadata: dict[str, Any] | None = None
    ) -> User:
        """Make a user of the tenant that is open to all. Raises RegistrationClosed, Invalid, AddressTaken."""
        tenant_id = self.settings.registration_tenant
        tenant = await TenantRepository(self.session).find(tenant_id) if tenant_id else None
        if tenant is None or tenant.deleted_at is not None:
            raise RegistrationClosed
        new = NewUser(email=email, name=name, password=password)
        user = await users.create_user(self.session, self.passwords, TenantScope(tenant.id), new)
        user.user_metadata = metadata or {}
        return user

    async def sign_up(self, email: str, password: str, metadata: dict[str, Any]) -> Grant:
        """Register and log in. Raises as `register`."""
        name = metadata.get("name", metadata.get("full_name"))
        if isinstance(name, str) and len(name) > MAX_TEXT:
            raise Invalid.field("data.name", f"at most {MAX_TEXT} characters")
        user = await self.register(email, name if isinstance(name, str) else None, password, metadata)
        return await self._begin(user, refreshable=True)

    async def refresh(self, refresh_token: str) -> Grant:
        """Go on with a session. A token that was used before ends it, whoever has the newer one.

        Raises RefreshRefused.
        """
        named = self.tokens.read_refresh_token(refresh_token)
        if named is None:
            raise RefreshRefused
        rotated = await rotate(self.session, *named, self.settings.session_seconds)
        if rotated is None:
            raise RefreshRefused(reused=await revoke_if_reused(self.pool, *named))
        user = await find_logged_in(self.session, rotated)
        if user is None:
            raise RefreshRefused
        return self._grant(user, rotated)

    async def user_of(self, caller: UserPrincipal) -> User:
        """The caller's row."""
        return await users.get_user(self.session, caller.scope, caller.user_id)

    async def change_own(
        self,
        caller: UserPrincipal,
        current_password: str | None,
        email: str | None,
        password: str | None,
        metadata: dict[str, Any] | None,
    ) -> User:
        """Change the caller's address or password, for which the current one is needed, or what it says of itself.

        Raises Invalid, WrongCredentials, Delayed, WeakPassword, SamePassword, AddressTaken, ManagedElsewhere.
        """
        user = await UserRepository(self.session, caller.scope).find(caller.user_id, lock=True)
        if user is None:
            raise Unauthorized("The user is gone", scheme="Bearer")
        if email is not None or password is not None:
            await self._confirm(user, current_password)
        if email is not None:
            user.email = users.address(email)
        if password is not None:
            if await self.passwords.matches(password, user.password_hash):
                raise SamePassword
            user.password_hash = await self.passwords.hash(password)
        if metadata is not None:
            merged = user.user_metadata | metadata
            user.user_metadata = {name: value for name, value in merged.items() if value is not None}
            if (problem := users.too_long(user.user_metadata)) is not None:
                raise Invalid.field("data", problem)
        await users.save_user(self.session, caller.scope, user)
        if password is not None:
            await users.end_sessions(self.session, user, keep=caller.session_id)
        return user

    async def log_out(self, caller: UserPrincipal, which: Which) -> None:
        """End all of the caller's sessions, this one or the others. Raises ManagedElsewhere."""
        if caller.session_id is None:
            raise ManagedElsewhere
        sessions = SessionRepository(self.session, caller.scope)
        await sessions.end(
            caller.user_id,
            only=caller.session_id if which == "local" else None,
            but=caller.session_id if which == "others" else None,
        )

    async def _confirm(self, user: User, current_password: str | None) -> None:
        if user.password_hash is None or user.email is None:
            raise ManagedElsewhere
        if current_password is None:
            raise Invalid.field("current_password", "required to change the email or the password")
        await self._checked(user.email, user, current_password)

    async def _checked(self, email: str, user: User | None, password: str) -> User:
        """The user. Raises WrongCredentials, Delayed.

        A delay that began meanwhile holds whatever the password, so that a thousand attempts at once tell no more than
        ten.
        """
        failed = FailedLogins(self.pool)
        await self._wait(failed.delay(email))
        matches = await self.passwords.matches(password, user.password_hash if user else None)
        if user is None or not matches or not user.is_active:
            await self._wait(failed.note(email))
            raise WrongCredentials
        await self._wait(failed.clear(email))
        return user

    @staticmethod
    async def _wait(seconds: Awaitable[int]) -> None:
        if (left := await seconds) > 0:
            raise Delayed(left)

    async def _begin(self, user: User, refreshable: bool) -> Grant:
        now = datetime.now(UTC)
        user.last_login_at = now
        user.last_active_at = max(now, user.last_active_at or now)
        self.session.add(user)
        seconds = self.settings.token_seconds
        if refreshable:
            seconds = max(seconds, self.settings.session_seconds)
        begun = await SessionRepository(self.session, TenantScope(user.tenant_id)).begin(user.id, seconds, refreshable)
        return self._grant(user, begun)

    def _grant(self, user: User, session: UserSession) -> Grant:
        return Grant(user, self.tokens.issue(user, session), self.tokens.refresh_token(session))
