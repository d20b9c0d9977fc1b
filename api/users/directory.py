"""Users as tokens name them: the queries that start from a credential instead of a tenant."""

from dataclasses import dataclass
from uuid import UUID

from api.database.engine import Pool
from api.http.principal import TenantInfo, UserPrincipal

FIND_ACTIVE = """
    SELECT users.role, tenants.id, tenants.plan, tenants.exclude_seen
    FROM sessions
    JOIN users ON users.tenant_id = sessions.tenant_id AND users.id = sessions.user_id
    JOIN tenants ON tenants.id = users.tenant_id
    WHERE sessions.id = %s AND users.tenant_id = %s AND users.id = %s
        AND sessions.expires_at > now() AND users.is_active AND tenants.deleted_at IS NULL
"""

FIND_ADMITTED = """
    SELECT
        users.is_active, users.role, tenants.id, tenants.plan, tenants.exclude_seen,
        NOT users.role_pinned AND users.password_hash IS NULL AND users.role <> %(role)s
            AND coalesce(users.role_issued_at, '-infinity') < to_timestamp(%(issued)s)
        OR coalesce(users.last_active_at, '-infinity') < to_timestamp(%(issued)s)
    FROM users JOIN tenants ON tenants.id = users.tenant_id
    WHERE users.tenant_id = %(tenant)s AND users.id = %(user)s AND tenants.deleted_at IS NULL
"""

# A user with a password logs in here, so its role is decided here too. Who was erased does not come back with a token
# that was issued before.
ADMIT = """
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
                CASE WHEN theirs THEN excluded.role ELSE known.role END,
                CASE WHEN theirs THEN excluded.role_issued_at ELSE known.role_issued_at END
            FROM (
                SELECT NOT known.role_pinned AND known.password_hash IS NULL
                    AND coalesce(known.role_issued_at, '-infinity') < excluded.role_issued_at AS theirs
            ) AS decided
        )
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a valid token of another issuer says about a user."""

    tenant_id: str
    user_id: str
    role: str
    email: str | None
    issued_at: int  # seconds since the epoch


async def find_active(pool: Pool, tenant_id: str, user_id: str, session_id: UUID) -> UserPrincipal | None:
    """The user as a principal; None where the session has ended, or the user or its tenant is no longer active."""
    async with pool.connection() as connection:
        cursor = await connection.execute(FIND_ACTIVE, [session_id, tenant_id, user_id])
        row = await cursor.fetchone()
    if row is None:
        return None
    role, *tenant = row
    return UserPrincipal(TenantInfo(*tenant), user_id, role, session_id)


async def admit(pool: Pool, identity: Identity) -> UserPrincipal | None:
    """The user of another issuer's token, made where there was none; None where it or its tenant is not active.

    The role is the row's. The token's becomes the row's if it is newer than the one that stands there and nobody here
    decided otherwise.
    """
    parameters = {
        "tenant": identity.tenant_id,
        "user": identity.user_id,
        "role": identity.role,
        "email": identity.email,
        "issued": identity.issued_at,
    }
    async with pool.connection() as connection:
        row = await (await connection.execute(FIND_ADMITTED, parameters)).fetchone()
        if row is None or row[-1]:
            await connection.execute(ADMIT, parameters)
            row = await (await connection.execute(FIND_ADMITTED, parameters)).fetchone()
    if row is None or not row[0]:
        return None
    _, role, *tenant, _ = row
    return UserPrincipal(TenantInfo(*tenant), identity.user_id, role)
