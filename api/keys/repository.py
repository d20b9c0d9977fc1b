"""The rows of API keys."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.principal import KeyPrincipal, TenantInfo
from api.keys.tables import ApiKey, InstallationSecret
from api.tenants.tables import Tenant

FIND_LIVE = """
    SELECT keys.id, keys.scopes, keys.rate_limit, tenants.id, tenants.plan, tenants.exclude_seen
    FROM api_keys AS keys JOIN tenants ON tenants.id = keys.tenant_id
    WHERE keys.key_hash = %s AND keys.revoked_at IS NULL AND tenants.deleted_at IS NULL
"""
TAGS = "api-key-tags"
"""The name of the secret that tags of keys are made with."""
MAX_UNTAGGED = 1_000_000
FIND_UNTAGGED = """
    SELECT secret, (
        SELECT coalesce(string_agg(beginning, '' ORDER BY beginning), '') FROM (
            SELECT substr(key_hash, 1, 8) AS beginning FROM api_keys
            WHERE NOT is_tagged AND revoked_at IS NULL LIMIT %s
        ) AS untagged
    )
    FROM installation_secrets WHERE name = %s
"""
RECORD_USE = """
    UPDATE api_keys SET last_used_at = greatest(last_used_at, used.at)
    FROM unnest(%s::uuid[], %s::timestamptz[]) AS used (id, at) WHERE api_keys.id = used.id
"""


class KeyRepository:
    """The keys of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def add(self, key: ApiKey) -> None:
        self._session.add(key)
        await self._session.flush()

    async def lock_and_count_live(self) -> int:
        """How many live keys the tenant has. Until the transaction ends, no other adds a key."""
        await self._session.exec(select(Tenant.id).where(Tenant.id == self._tenant_id).with_for_update())
        live = select(func.count()).where(ApiKey.tenant_id == self._tenant_id, col(ApiKey.revoked_at).is_(None))
        return (await self._session.exec(live)).one()

    async def page(self, offset: int, limit: int) -> tuple[Sequence[ApiKey], int]:
        """A page of keys, live keys before revoked ones and newest first, and the total."""
        own = ApiKey.tenant_id == self._tenant_id
        total = (await self._session.exec(select(func.count()).select_from(ApiKey).where(own))).one()
        order = (col(ApiKey.revoked_at).is_not(None), col(ApiKey.created_at).desc(), col(ApiKey.id))
        statement = select(ApiKey).where(own).order_by(*order).offset(offset).limit(limit)
        return (await self._session.exec(statement)).all(), total

    async def lock_live(self, key_id: UUID) -> bytes | None:
        """The hash of a live key's secret; None where the tenant has no such key. Until the transaction ends, no other
        changes it."""
        statement = select(ApiKey.key_hash).where(
            ApiKey.tenant_id == self._tenant_id, ApiKey.id == key_id, col(ApiKey.revoked_at).is_(None)
        )
        return (await self._session.exec(statement.with_for_update())).one_or_none()

    async def replace_secret(self, key_id: UUID, prefix: str, key_hash: bytes) -> ApiKey | None:
        """Give a live key another secret and return it; None where the tenant has no such key."""
        statement = (
            update(ApiKey)
            .where(col(ApiKey.tenant_id) == self._tenant_id, col(ApiKey.id) == key_id, col(ApiKey.revoked_at).is_(None))
            .values(prefix=prefix, key_hash=key_hash, is_tagged=True, last_used_at=None)
            .returning(ApiKey)
        )
        return (await self._session.exec(statement)).scalar_one_or_none()

    async def revoke(self, key_id: UUID) -> tuple[datetime, str] | None:
        """Revoke a live key and return the time and its name; None where the tenant has no such key."""
        statement = (
            update(ApiKey)
            .where(col(ApiKey.tenant_id) == self._tenant_id, col(ApiKey.id) == key_id, col(ApiKey.revoked_at).is_(None))
            .values(revoked_at=func.now())
            .returning(col(ApiKey.revoked_at), col(ApiKey.name))
        )
        row = (await self._session.exec(statement)).one_or_none()
        return (row[0], row[1]) if row else None


async def tag_secret(session: AsyncSession) -> bytes:
    """The secret that tags of keys are made with."""
    statement = select(InstallationSecret.secret).where(InstallationSecret.name == TAGS)
    return (await session.exec(statement)).one()


async def find_untagged_keys(pool: Pool) -> tuple[bytes, bytes]:
    """The secret that tags of keys are made with, and the first 8 bytes of the hash of each live key without a tag.

    They are ordered and follow each other. At most a million are read.
    """
    async with pool.connection() as connection:
        row = await (await connection.execute(FIND_UNTAGGED, [MAX_UNTAGGED, TAGS])).fetchone()
    if row is None:
        raise LookupError("the secret of API keys is missing: its migration has made one")
    return row


async def find_live(pool: Pool, key_hash: bytes) -> KeyPrincipal | None:
    """The principal of a live key. The query starts from a credential, so it takes no tenant scope."""
    async with pool.connection() as connection:
        cursor = await connection.execute(FIND_LIVE, [key_hash])
        row = await cursor.fetchone()
    if row is None:
        return None
    key_id, scopes, rate_limit, *tenant = row
    return KeyPrincipal(TenantInfo(*tenant), key_id, frozenset(scopes), rate_limit)


async def record_use(pool: Pool, last_used: Mapping[UUID, datetime]) -> None:
    """Record when these keys were last used."""
    async with pool.connection() as connection:
        await connection.execute(RECORD_USE, [list(last_used), list(last_used.values())])
