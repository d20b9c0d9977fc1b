"""Finds the user that a token names. These queries start from a credential, so they take no tenant scope."""

from dataclasses import dataclass
from uuid import UUID

from api.audit.repository import AuditEvent, AuditTrail
from api.database.engine import Pool
from api.database.origin import Origin
from api.database.scope import TenantScope
from api.http.principal import TenantInfo, UserPrincipal

FIND_SESSION_USER = """
    SELECT users.role, tenants.id, tenants.plan, tenants.exclude_seen
    FROM sessions
    JOIN users ON users.tenant_id = sessions.tenant_id AND users.id = sessions.user_id
    JOIN tenants ON tenants.id = users.tenant_id
    WHERE sessions.id = %s AND users.tenant_id = %s AND users.id = %s
        AND sessions.expires_at > now() AND users.is_active AND tenants.deleted_at IS NULL
"""

FIND_EXTERNAL = """
    SELECT
        users.is_active, users.role, tenants.id, tenants.plan, tenants.exclude_seen,
        NOT users.role_pinned AND users.password_hash IS NULL AND users.role <> %(role)s
            AND coalesce(users.role_issued_at, '-infinity') < to_timestamp(%(issued)s)
        OR coalesce(users.last_active_at, '-infinity') < to_timestamp(%(issued)s)
    FROM users JOIN tenants ON tenants.id = users.tenant_id
    WHERE users.tenant_id = %(tenant)s AND users.id = %(user)s AND tenants.deleted_at IS NULL
"""

# A user with a password keeps the role that it has here. A token that was issued before its user was erased does not
# create the user again.
ADD_OR_UPDATE = """
    INSERT INTO users AS known (tenant_id, id, email, role, role_issued_at, last_active_at)
    SELECT id, %(user)s, %(email)s, %(role)s, to_timestamp(%(issued)s), to_timestamp(%(issued)s)
    FROM tenants WHERE id = %(tenant)s AND deleted_at IS NULL AND NOT EXISTS (
        SELECT FROM tombstones
        WHERE tenant_id = %(tenant)s AND user_id = %(user)s AND erased_at >= to_timestamp(%(issued)s)
    )
    ON CONFLICT (tenant_id, id) DO UPDATE SET
        email = coalesce(known.email, excluded.email),
        last_active_at = greatest(known.last_active_at, excluded.last_active_at),
        (role, role_issued_at) = (
            SELECT
                CASE WHEN takes_role THEN excluded.role ELSE known.role END,
                CASE WHEN takes_role THEN excluded.role_issued_at ELSE known.role_issued_at END
            FROM (
                SELECT NOT known.role_pinned AND known.password_hash IS NULL
                    AND coalesce(known.role_issued_at, '-infinity') < excluded.role_issued_at AS takes_role
            ) AS decided
        )
"""


@dataclass(frozen=True, slots=True)
class ExternalIdentity:
    """What a valid token of an external issuer says about its user."""

    tenant_id: str
    user_id: str
    role: str
    email: str | None
    issued_at: int  # seconds since the epoch


async def find_session_user(pool: Pool, tenant_id: str, user_id: str, session_id: UUID) -> UserPrincipal | None:
    """The user of a session; None where the session has ended, or the user or its tenant is not active."""
    async with pool.connection() as connection:
        cursor = await connection.execute(FIND_SESSION_USER, [session_id, tenant_id, user_id])
        row = await cursor.fetchone()
    if row is None:
        return None
    role, *tenant = row
    return UserPrincipal(TenantInfo(*tenant), user_id, role, session_id)


async def find_or_add_external_user(pool: Pool, identity: ExternalIdentity) -> UserPrincipal | None:
    """The user of an external issuer's token, added if unknown; None where the user or its tenant is not active.

    The principal has the role of the user's row. A token's role is written to the row where the token is newer than
    the one that the row's role came from, unless an administrator has set the role (`role_pinned`).
    """
    parameters = {
        "tenant": identity.tenant_id,
        "user": identity.user_id,
        "role": identity.role,
        "email": identity.email,
        "issued": identity.issued_at,
    }
    async with pool.connection() as connection:
        row = await (await connection.execute(FIND_EXTERNAL, parameters)).fetchone()
        if row is None or row[-1]:
            async with connection.transaction():
                before = row[1] if row else None
                await connection.execute(ADD_OR_UPDATE, parameters)
                row = await (await connection.execute(FIND_EXTERNAL, parameters)).fetchone()
                if row is not None and row[1] != before:
                    await _note_role(AuditTrail(connection, TenantScope(identity.tenant_id)), identity, before, row[1])
    if row is None or not row[0]:
        return None
    _, role, *tenant, _ = row
    return UserPrincipal(TenantInfo(*tenant), identity.user_id, role)


async def _note_role(trail: AuditTrail, identity: ExternalIdentity, before: str | None, after: str) -> None:
    """Write into the audit trail that an issuer's token has created a user, or changed its role."""
    event = (
        AuditEvent("user.created", identity.user_id, "user", {"role": after})
        if before is None
        else AuditEvent("role.changed", identity.user_id, "user", {"before": before, "after": after})
    )
    await trail.add(event, Origin(name="identity-provider"))
