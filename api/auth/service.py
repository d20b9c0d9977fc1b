"""Logging in with an address and a password."""

from sqlmodel.ext.asyncio.session import AsyncSession

from api.auth.tokens import Tokens
from api.database.scope import TenantScope
from api.edge.problems import Unauthorized
from api.users.passwords import Passwords
from api.users.repository import UserRepository, find_login
from api.users.tables import User


async def log_in(
    session: AsyncSession, passwords: Passwords, tokens: Tokens, email: str, password: str
) -> tuple[User, str]:
    """The user and a token. Raises Unauthorized, for every reason the same and in about the same time."""
    user = await find_login(session, email)
    matches = await passwords.matches(password, user.password_hash if user else None)
    if user is None or not matches or not user.is_active:
        raise Unauthorized("The email or the password is wrong", scheme="Bearer")
    await UserRepository(session, TenantScope(user.tenant_id)).note_activity(user.id)
    return user, tokens.issue(user)
