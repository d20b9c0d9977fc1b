"""Who is calling. `api.http.authentication` finds the principal of a request; routes get it as a dependency."""

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
    rate_limit: int | None = field(default=None)  # requests a minute; None: the default of the settings; 0: no limit

    @property
    def scope(self) -> TenantScope:
        """The tenant whose rows this caller may touch."""
        return TenantScope(self.tenant.id)


@dataclass(frozen=True, slots=True)
class UserPrincipal:
    """A person with a token. The role is read from the user's row, not from the token."""

    tenant: TenantInfo
    user_id: str
    role: str
    session_id: UUID | None = None  # None: a token of an external issuer, which manages its own sessions

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def scope(self) -> TenantScope:
        return TenantScope(self.tenant.id)


Principal = KeyPrincipal | UserPrincipal


def principal_of(request: Request) -> Principal | None:
    """The caller; None where the request has no valid credential."""
    found: Principal | None = request.scope["state"].get(STATE_KEY)
    return found


def require_key(principal: Principal | None, scope: Scope) -> KeyPrincipal:
    """The caller, which must be an API key with this scope. Raises Unauthorized, Forbidden."""
    if not isinstance(principal, KeyPrincipal):
        raise Unauthorized
    if scope not in principal.scopes:
        raise Forbidden(f"This API key lacks the scope {scope!r}")
    return principal


API_KEY, TOKEN = "ApiKey", "Token"
"""Names of the security schemes."""
_SCHEME = "security_scheme"


Dependency = TypeVar("Dependency", bound=Callable[..., Any])


def requires_scheme(dependency: Dependency, scheme: str) -> Dependency:
    """Mark a dependency as one that requires a credential of this security scheme, and return it."""
    setattr(dependency, _SCHEME, scheme)
    return dependency


def required_scheme(dependency: object) -> str | None:
    """The security scheme that a dependency of a route requires; None where it requires no credential."""
    found: str | None = getattr(dependency, _SCHEME, None)
    return found


def _key_with(scope: Scope) -> Callable[[Request], Awaitable[KeyPrincipal]]:
    async def key(request: Request) -> KeyPrincipal:
        return require_key(principal_of(request), scope)

    return requires_scheme(key, API_KEY)


ReadKey = Annotated[KeyPrincipal, Depends(_key_with("read"))]
"""The type of a route's parameter: the route accepts only API keys with the scope `read`."""

WriteKey = Annotated[KeyPrincipal, Depends(_key_with("write"))]


async def _current_tenant(request: Request) -> TenantScope:
    principal = principal_of(request)
    if principal is None:
        raise Unauthorized
    return principal.scope


CurrentTenant = Annotated[TenantScope, Depends(_current_tenant)]
"""The tenant of the caller; 401 without a valid credential."""


async def _current_user(request: Request) -> UserPrincipal:
    principal = principal_of(request)
    if not isinstance(principal, UserPrincipal):
        raise Unauthorized("The token is missing or invalid", scheme="Bearer")
    return principal


CurrentUser = Annotated[UserPrincipal, Depends(requires_scheme(_current_user, TOKEN))]
"""The type of a route's parameter: the route accepts only users with a valid token."""


async def _current_admin(user: CurrentUser) -> UserPrincipal:
    if not user.is_admin:
        raise Forbidden("This is for administrators of the tenant")
    return user


CurrentAdmin = Annotated[UserPrincipal, Depends(_current_admin)]
