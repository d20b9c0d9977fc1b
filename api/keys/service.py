"""Creates, rotates and revokes API keys. A key is shown once; only its hash is stored."""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.service import note_key
from api.database.scope import TenantScope
from api.http.disk import needing_disk
from api.http.principal import SCOPES
from api.http.problems import Conflict, Invalid, NotFound
from api.keys.journal import RevocationJournal
from api.keys.repository import KeyRepository, tag_secret
from api.keys.tables import ApiKey
from api.keys.tags import PREFIX, make_key

PREFIX_LENGTH = len(PREFIX) + 6
MAX_LIVE_KEYS = 20


def hash_of(key: str) -> bytes:
    """The hash of a key that is stored. A key has at least 192 random bits, so it needs no slow hash."""
    return hashlib.sha256(key.encode()).digest()


async def create_key(
    session: AsyncSession,
    scope: TenantScope,
    name: str,
    scopes: Collection[str] = SCOPES,
    rate_limit: int | None = None,
) -> tuple[ApiKey, str]:
    """Create a key and return its row and the key itself, which is not stored.

    rate_limit: requests a minute; None: the default of the settings; 0: no limit.
    Raises Invalid for a name, scope or limit that is not valid, Conflict where the tenant has 20 live keys.
    """
    if not 1 <= len(name.strip()) <= 100:
        raise Invalid.field("name", "1 to 100 characters")
    if not scopes or not set(scopes) <= set(SCOPES):
        raise Invalid.field("scopes", f"one or more of: {', '.join(SCOPES)}")
    if rate_limit is not None and rate_limit < 0:
        raise Invalid.field("rateLimit", "requests a minute, 0 or more")
    keys = KeyRepository(session, scope)
    if await keys.lock_and_count_live() >= MAX_LIVE_KEYS:
        raise Conflict(f"A tenant has at most {MAX_LIVE_KEYS} live API keys: revoke one first")
    key = make_key(await tag_secret(session))
    row = ApiKey(
        id=uuid4(),
        tenant_id=scope.tenant_id,
        name=name.strip(),
        prefix=key[:PREFIX_LENGTH],
        key_hash=hash_of(key),
        scopes=[known for known in SCOPES if known in scopes],
        rate_limit=rate_limit,
        is_tagged=True,
    )
    await keys.add(row)
    await note_key(session, scope, "key.created", row.id, _described(row))
    return row, key


def check_rate_limit(rate_limit: int | None, allowed: int) -> None:
    """Raises Invalid for a limit above the default of keys, which only the command line may exceed."""
    if rate_limit is not None and rate_limit > allowed:
        raise Invalid.field("rateLimit", f"at most {allowed}: the command line alone can raise the limit of a key")


async def list_keys(session: AsyncSession, scope: TenantScope, offset: int, limit: int) -> tuple[Sequence[ApiKey], int]:
    """A page of the tenant's keys, live keys first, and the total."""
    return await KeyRepository(session, scope).page(offset, limit)


async def rotate_key(
    session: AsyncSession, scope: TenantScope, key_id: UUID, journal: RevocationJournal
) -> tuple[ApiKey, str]:
    """Give a key another secret and return its row and the new key. The old one ends within 5 seconds.

    Raises NotFound where the tenant has no such live key.
    """
    keys, key = KeyRepository(session, scope), make_key(await tag_secret(session))
    ended = await keys.lock_live(key_id)
    row = await keys.replace_secret(key_id, key[:PREFIX_LENGTH], hash_of(key))
    if row is None or ended is None:
        raise NotFound("There is no such live API key")
    await note_key(session, scope, "key.rotated", row.id, {"name": row.name})
    with needing_disk():
        await journal.record(scope.tenant_id, key_id, ended)
    return row, key


def _described(row: ApiKey) -> dict[str, Any]:
    """What the audit trail says of a new key."""
    return {"name": row.name, "scopes": row.scopes, "rateLimit": row.rate_limit}


async def revoke_key(session: AsyncSession, scope: TenantScope, key_id: UUID, journal: RevocationJournal) -> datetime:
    """Revoke a key. It is refused after 5 seconds at most. Raises NotFound where the tenant has no such live key."""
    keys = KeyRepository(session, scope)
    ended = await keys.lock_live(key_id)
    revoked = await keys.revoke(key_id)
    if revoked is None or ended is None:
        raise NotFound("There is no such live API key")
    revoked_at, name = revoked
    await note_key(session, scope, "key.revoked", key_id, {"name": name})
    with needing_disk():
        await journal.record(scope.tenant_id, key_id, ended)
    return revoked_at
