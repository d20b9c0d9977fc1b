"""Logging in, refreshing and logging out, registration, and changes of one's own user."""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.failures import LoginFailures
from api.audit.service import note_login, note_user
from api.auth.problems import (
    Delayed,
    ManagedElsewhere,
    RefreshRefused,
    RegistrationClosed,
    SamePassword,
    WrongCredentials,
)
from api.auth.repository import FailedLogins, remember_network
from api.auth.tokens import AccessToken, Tokens
from api.database.engine import Pool
from api.database.origin import origin_of
from api.database.scope import TenantScope
from api.http.principal import UserPrincipal
from api.http.problems import Invalid, Unauthorized
from api.http.schemas import MAX_TEXT
from api.sessions.repository import SessionRepository, TokenGeneration, revoke_if_reused, rotate
from api.tenants.repository import is_live_tenant
from api.users import service as users
from api.users.passwords import Passwords
from api.users.repository import (
    PasswordAccount,
    UserRepository,
    find_account,
    find_logged_in,
    find_own_account,
)
from api.users.schemas import NewUser
from api.users.tables import User
from configs.auth import AuthSettings

LogoutScope = Literal["global", "local", "others"]


@dataclass(frozen=True, slots=True)
class Grant:
    """The tokens that a login gives, and the user."""

    user: User
    access: AccessToken
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Logins:
    """Logins in the transaction of one request. Failed logins are counted outside of it, on the pool.

    network: from which the request comes.
    """

    session: AsyncSession
    pool: Pool
    passwords: Passwords
    tokens: Tokens
    settings: AuthSettings
    network: str
    failures: LoginFailures

    async def log_in(self, email: str, password: str, *, refreshable: bool) -> Grant:
        """Start a session. Raises WrongCredentials, Delayed."""
        email = email.strip()
        account = await self._verify(email, await find_account(self.pool, email), password)
        # During the verification, another request may have changed the password, or deactivated or deleted the user.
        user = await UserRepository(self.session, TenantScope(account.tenant_id)).find(account.user_id, lock=True)
        if user is None or not user.is_active or user.password_hash != account.password_hash:
            raise WrongCredentials
        return await self._start_session(user, refreshable)

    async def register(
        self, email: str, name: str | None, password: str, metadata: dict[str, Any] | None = None
    ) -> User:
        """Create a user of the tenant open to registration. Raises RegistrationClosed, Invalid, AddressTaken."""
        tenant_id = self.settings.registration_tenant
        if tenant_id is None or not await is_live_tenant(self.pool, tenant_id):
            raise RegistrationClosed
        new = NewUser(email=email, name=name, password=password)
        scope = TenantScope(tenant_id)
        user = await users.create_user(self.session, self.passwords, scope, new, by_admin=False)
        user.user_metadata = metadata or {}
        return user

    async def sign_up(self, email: str, password: str, metadata: dict[str, Any]) -> Grant:
        """Register and log in. Raises the errors of `register`."""
        name = metadata.get("name", metadata.get("full_name"))
        if isinstance(name, str) and len(name) > MAX_TEXT:
            raise Invalid.field("data.name", f"at most {MAX_TEXT} characters")
        user = await self.register(email, name if isinstance(name, str) else None, password, metadata)
        return await self._start_session(user, refreshable=True)

    async def refresh(self, refresh_token: str) -> Grant:
        """Continue a session with its next refresh token.

        Used again within `GRACE`, a refresh token gives the same tokens. Later it ends the session, because two parties
        hold its tokens. Raises RefreshRefused.
        """
        session_and_generation = await self.tokens.read_refresh_token(refresh_token)
        if session_and_generation is None:
            raise RefreshRefused
        generation = await rotate(self.session, *session_and_generation, self.settings.session_seconds)
        if generation is None:
            await self.session.rollback()  # its connection is not needed any more, and another one is
            raise RefreshRefused(reused=await revoke_if_reused(self.pool, *session_and_generation))
        user = await find_logged_in(self.session, generation.session)
        if user is None:
            raise RefreshRefused
        return self._grant(user, generation)

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
        """Change the caller's address or password, which needs the current password, or its metadata.

        Raises Invalid, WrongCredentials, Delayed, WeakPassword, SamePassword, AddressTaken, ManagedElsewhere.
        """
        verified = new_hash = None
        if email is not None or password is not None:
            verified = await self._verify_current_password(caller, current_password)
        if verified is not None and password is not None:
            if await self.passwords.matches(password, verified.password_hash):
                raise SamePassword
            new_hash = await self.passwords.hash(password, verified.email, verified.tenant_id)
        user = await UserRepository(self.session, caller.scope).find(caller.user_id, lock=True)
        if user is None:
            raise Unauthorized("The user was deleted", scheme="Bearer")
        if verified is not None and user.password_hash != verified.password_hash:  # it changed during the verification
            raise WrongCredentials
        is_moved = email is not None and users.set_address(user, email, by_admin=False)
        if new_hash is not None:
            user.password_hash = new_hash
        if metadata is not None:
            merged = user.user_metadata | metadata
            user.user_metadata = {name: value for name, value in merged.items() if value is not None}
            if (problem := users.too_long(user.user_metadata)) is not None:
                raise Invalid.field("data", problem)
        await users.save_user(self.session, caller.scope, user)
        if new_hash is not None:
            await users.end_sessions(self.session, user, keep=caller.session_id)
            await note_user(self.session, caller.scope, "password.changed", user.id)
        if is_moved:
            await note_user(self.session, caller.scope, "user.changed", user.id, {"changed": ["email"]})
        return user

    async def log_out(self, caller: UserPrincipal, which: LogoutScope) -> None:
        """End all sessions of the caller, only this one, or all others. Raises ManagedElsewhere."""
        if caller.session_id is None:
            raise ManagedElsewhere
        sessions = SessionRepository(self.session, caller.scope)
        await sessions.end(
            caller.user_id,
            only=caller.session_id if which == "local" else None,
            except_for=caller.session_id if which == "others" else None,
        )

    async def _verify_current_password(self, caller: UserPrincipal, current_password: str | None) -> PasswordAccount:
        account = await find_own_account(self.pool, caller.scope, caller.user_id)
        if account is None:
            raise ManagedElsewhere
        if current_password is None:
            raise Invalid.field("current_password", "required to change the email or the password")
        return await self._verify(account.email, account, current_password)

    async def _verify(self, email: str, account: PasswordAccount | None, password: str) -> PasswordAccount:
        """Verify the password and return the account. Raises WrongCredentials, Delayed.

        Every route that takes a password verifies it here. No connection and no lock is held meanwhile, because hashes
        wait for each other. A delay that began during the verification also refuses the right password. A thousand
        concurrent attempts therefore reveal no more than ten.
        """
        try:
            return await self._verify_unless_delayed(email, account, password)
        except (WrongCredentials, Delayed):
            if account is not None:
                self.failures.record(account.tenant_id, account.user_id, origin_of(self.session))
            raise

    async def _verify_unless_delayed(
        self, email: str, account: PasswordAccount | None, password: str
    ) -> PasswordAccount:
        failed = FailedLogins(self.pool, self.network)
        await self._raise_if_delayed(failed.delay(email))
        matches = await self.passwords.matches(password, account.password_hash if account else None)
        if account is None or not matches or not account.is_active:
            await self._raise_if_delayed(failed.record(email))
            raise WrongCredentials
        await self._raise_if_delayed(failed.clear(email))
        return account

    @staticmethod
    async def _raise_if_delayed(seconds: Awaitable[int]) -> None:
        if (left := await seconds) > 0:
            raise Delayed(left)

    async def _start_session(self, user: User, refreshable: bool) -> Grant:
        now = datetime.now(UTC)
        user.last_login_at = now
        user.last_active_at = max(now, user.last_active_at or now)
        self.session.add(user)
        await self.session.flush()  # writes the row of a new user, which the network's row refers to
        await remember_network(self.session, user, self.network)
        seconds = self.settings.token_seconds
        if refreshable:
            seconds = max(seconds, self.settings.session_seconds)
        scope = TenantScope(user.tenant_id)
        started = await SessionRepository(self.session, scope).start(user.id, seconds, refreshable)
        await note_login(self.session, scope, user.id)
        return self._grant(user, TokenGeneration(started, started.generation, now))

    def _grant(self, user: User, generation: TokenGeneration) -> Grant:
        return Grant(user, self.tokens.issue(user, generation), self.tokens.refresh_token(generation))
