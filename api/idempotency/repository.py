"""The rows of idempotency records."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Pool
from api.database.parts import delete_in_parts
from api.database.scope import TenantScope

LIFETIME = "24 hours"


@dataclass(frozen=True, slots=True)
class RecordedResponse:
    """The response to a request, and the fingerprint of the query and body that it answered."""

    fingerprint: bytes
    status: int
    headers: list[list[str]]
    body: bytes


class IdempotencyRepository:
    """The idempotency records of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def claim(self, request: bytes) -> tuple[RecordedResponse | None, bool]:
        """The recorded response of this request, and whether this transaction now holds the request's lock.

        Until the transaction ends, others that claim the same request get False.
        """
        lock = int.from_bytes(request[:8], "big", signed=True)
        parameters = {"tenant": self._tenant_id, "request": request, "lock": lock}
        row = (await (await self._session.connection()).execute(_CLAIM, parameters)).one()
        locked, fingerprint, status, headers, body = row
        if fingerprint is None:
            return None, locked
        return RecordedResponse(bytes(fingerprint), status, headers, bytes(body)), locked

    async def claim_for(self, request: bytes, token: UUID, seconds: float) -> tuple[RecordedResponse | None, bool]:
        """The recorded response of this request, and whether the token holds its claim now.

        Unlike the lock of `claim`, a claim outlives the transaction: until `release`, or for so many seconds.
        """
        connection = await self._session.connection()
        parameters = {"tenant": self._tenant_id, "request": request, "token": token, "seconds": seconds}
        taken: Any = await connection.execute(_TAKE_CLAIM, parameters)
        # Read after the claim: whoever had it before has recorded its response by then.
        recorded, _ = await self.claim(request)
        if recorded is not None and taken.rowcount:
            await self.release(request, token)
        return recorded, bool(taken.rowcount)

    async def release(self, request: bytes, token: UUID) -> bool:
        """Give the claim back. False where the token does not hold it any more."""
        parameters = {"tenant": self._tenant_id, "request": request, "token": token}
        released: Any = await (await self._session.connection()).execute(_RELEASE_CLAIM, parameters)
        return bool(released.rowcount)

    async def add(self, request: bytes, user_id: str | None, response: RecordedResponse) -> bool:
        """Record the response. False where the request has a record already: the caller must roll back its effect."""
        parameters = {
            "tenant": self._tenant_id,
            "request": request,
            "fingerprint": response.fingerprint,
            "user": None if user_id is None else user_digest(self._tenant_id, user_id),
            "status": response.status,
            "headers": json.dumps(response.headers),
            "body": response.body,
        }
        added: Any = await (await self._session.connection()).execute(_ADD, parameters)
        return bool(added.rowcount == 1)

    async def delete_of_user(self, user_id: str) -> None:
        """Delete the responses to this user, and all responses that contain the user's id as a JSON string."""
        digest = user_digest(self._tenant_id, user_id)
        spellings = {json.dumps(user_id, ensure_ascii=ascii_only).encode() for ascii_only in (False, True)}
        connection = await self._session.connection()
        for spelling in spellings:
            await connection.execute(
                _DELETE_OF_USER,
                {"tenant": self._tenant_id, "user": digest, "mention": spelling},
            )


def user_digest(tenant_id: str, user_id: str) -> str:
    """Stands for the user's id. A token works for seconds after its user is erased, so the id is not stored."""
    return hashlib.sha256("\0".join([tenant_id, user_id]).encode()).hexdigest()


async def delete_expired(pool: Pool) -> int:
    """Delete the records of all tenants that are older than a day, and return how many there were."""
    async with pool.connection() as connection:
        await connection.execute(_DELETE_VOID_CLAIMS)
    return await delete_in_parts(pool, _DELETE_EXPIRED)


# Another transaction may commit a record between the snapshot of this statement and its lock. `_ADD` finds out then.
_CLAIM = text(
    f"""
    SELECT pg_try_advisory_xact_lock(:lock), record.fingerprint, record.status, record.headers, record.body
    FROM (SELECT) AS request
    LEFT JOIN idempotency_records AS record
        ON record.tenant_id = :tenant AND record.request = :request
        AND record.created_at > now() - interval '{LIFETIME}'
    """  # noqa: S608 - a constant of this module
)

_TAKE_CLAIM = text(
    """
    INSERT INTO idempotency_claims AS claim (tenant_id, request, token, claimed_until)
    VALUES (:tenant, :request, :token, now() + make_interval(secs => :seconds))
    ON CONFLICT (tenant_id, request) DO UPDATE
    SET token = excluded.token, claimed_until = excluded.claimed_until
    WHERE claim.claimed_until <= now()
    """
)

_RELEASE_CLAIM = text(
    "DELETE FROM idempotency_claims WHERE tenant_id = :tenant AND request = :request AND token = :token"
)

_DELETE_VOID_CLAIMS = "DELETE FROM idempotency_claims WHERE claimed_until <= now()"

_ADD = text(
    f"""
    INSERT INTO idempotency_records AS record (tenant_id, request, fingerprint, user_id, status, headers, body)
    VALUES (:tenant, :request, :fingerprint, :user, :status, CAST(:headers AS jsonb), :body)
    ON CONFLICT (tenant_id, request) DO UPDATE
    SET fingerprint = excluded.fingerprint, user_id = excluded.user_id, status = excluded.status,
        headers = excluded.headers, body = excluded.body, created_at = excluded.created_at
    WHERE record.created_at <= now() - interval '{LIFETIME}'
    """  # noqa: S608 - a constant of this module
)

_DELETE_EXPIRED = f"""
DELETE FROM idempotency_records WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_records WHERE created_at <= now() - interval '{LIFETIME}'
    LIMIT %(rows)s FOR UPDATE SKIP LOCKED
))
"""  # noqa: S608 - a constant of this module

_DELETE_OF_USER = text(
    "DELETE FROM idempotency_records WHERE tenant_id = :tenant AND (user_id = :user OR position(:mention IN body) > 0)"
)
