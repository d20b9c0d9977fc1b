"""Who is calling: found once per request by `api.http.auth`, asked for by routes through the dependencies below."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import Depends, Request

from api.database.scope import TenantScope
from api.http.problems import Forbidden, Unauthorized

Scope = Literal["read", "write"]
SCOPES: tuple[Scope, ...] = ("read", "write")
STATE_KEY = "principal"


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """The caller's tenant as of at most 5 seconds ago."""

    id: str
    plan: str
    exclude_seen: str


@dataclass(frozen=True, slots=True)
class KeyPrincipal:
    """A backend with an API key."""

    tenant: TenantInfo
    key_id: UUID
    scopes: frozenset[str]
    rate_limit: int | None = field(default=None)  # requests a minute; None: the setting's; 0: no limit

    @property
    def scope(self) -> TenantScope:
        """Whose rows this caller may touch, for repositories."""
        return TenantScope(self.tenant.id)


@dataclass(frozen=True, slots=True)
class UserPrincipal:
    """A person with a token. Role and activity are those of the user's row, not of the token."""

    tenant: TenantInfo
    user_id: str
    role: str
    session_id: UUID | None = None  # None: the token is of another issuer, whose sessions are its own

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def scope(self) -> TenantScope:
        return TenantScope(self.tenant.id)


Principal = KeyPrincipal | UserPrincipal


def principal_of(request: Request) -> Principal | None:
    """The caller, or None where it has no valid credential."""
    found: Principal | None = request.scope["state"].get(STATE_KEY)
    return found


def require_key(principal: Principal | None, scope: Scope) -> KeyPrincipal:
    """The caller, who must be an API key with this scope. Raises Unauthorized, Forbidden."""
    if not isinstance(principal, KeyPrincipal):
        raise Unauthorized
    if scope not in principal.scopes:
        raise Forbidden(f"This API key lacks the scope {scope!r}")
    return principal


API_KEY, TOKEN = "ApiKey", "Token"
"""Names of the security schemes."""
_OPENS = "opens_with"


Dependency = TypeVar("Dependency", bound=Callable[..., Any])


def lets_in(dependency: Dependency, scheme: str) -> Dependency:
    """The dependency, known to ask for a credential of this security scheme."""
    setattr(dependency, _OPENS, scheme)
    return dependency


def opens_with(dependency: object) -> str | None:
    """The security scheme that this dependency of a route asks for; None where it asks for no credential."""
    found: str | None = getattr(dependency, _OPENS, None)
    return found


def _key_with(scope: Scope) -> Callable[[Request], Awaitable[KeyPrincipal]]:
    async def key(request: Request) -> KeyPrincipal:
        return require_key(principal_of(request), scope)

    return lets_in(key, API_KEY)


ReadKey = Annotated[KeyPrincipal, Depends(_key_with("read"))]
"""A route's parameter of this type lets API keys with the scope `read` in, and nobody else."""

WriteKey = Annotated[KeyPrincipal, Depends(_key_with("write"))]


async def _current_tenant(request: Request) -> TenantScope:
    principal = principal_of(request)
    if principal is None:
        raise Unauthorized
    return principal.scope


CurrentTenant = Annotated[TenantScope, Depends(_current_tenant)]
"""The tenant of whoever calls; 401 without a credential."""


async def _current_user(request: Request) -> UserPrincipal:
    principal = principal_of(request)
    if not isinstance(principal, UserPrincipal):
        raise Unauthorized("The token is missing or invalid", scheme="Bearer")
    return principal


CurrentUser = Annotated[UserPrincipal, Depends(lets_in(_current_user, TOKEN))]
"""A route's parameter of this type lets people with a valid token in, and nobody else."""


async def _current_admin(user: CurrentUser) -> UserPrincipal:
    if not user.is_admin:
        raise Forbidden("This is for administrators of the tenant")
    return user


CurrentAdmin = Annotated[UserPrincipal, Depends(_current_admin)]
