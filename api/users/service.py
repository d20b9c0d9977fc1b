"""Portal users: who has a password can log in."""

import re
from uuid import uuid4

from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.scope import TenantScope
from api.edge.problems import Conflict, Invalid, NotFound
from api.users.passwords import Passwords
from api.users.repository import UserRepository, find_login
from api.users.tables import User

EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,255}")


async def create_admin(
    session: AsyncSession, passwords: Passwords, scope: TenantScope, email: str, password: str
) -> User:
    """Make an administrator of the tenant.

    Raises Invalid for an address or password that is none, Conflict where the address can log in already, here or in
    another tenant.
    """
    email = email.strip()
    if EMAIL.fullmatch(email) is None:
        raise Invalid.field("email", "an address like name@example.com")
    user = User(
        tenant_id=scope.tenant_id,
        id=str(uuid4()),
        email=email,
        role="admin",
        password_hash=await passwords.hash(password),
    )
    try:
        await UserRepository(session, scope).add(user)
    except IntegrityError as error:
        raise Conflict("This address cannot be used") from error
    return user


async def set_password(session: AsyncSession, passwords: Passwords, email: str, password: str) -> None:
    """Give the portal user of this address another password. Raises NotFound, and Invalid for a weak password."""
    user = await find_login(session, email)
    if user is None:
        raise NotFound(f"Nobody logs in as {email}")
    user.password_hash = await passwords.hash(password)
    session.add(user)
