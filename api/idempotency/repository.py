"""The rows of kept answers."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Pool
from api.database.scope import TenantScope

KEPT_FOR = "24 hours"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a request was answered with."""

    fingerprint: bytes
    status: int
    headers: list[list[str]]
    body: bytes


class KeptAnswerRepository:
    """The kept answers of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def claim(self, request: bytes) -> tuple[Kept | None, bool]:
        """What this request was answered with, and, where it was not, whether nobody else is at it.

        Until the transaction ends whoever claims the same request is told that somebody is.
        """
        lock = int.from_bytes(request[:8], "big", signed=True)
        parameters = {"tenant": self._tenant_id, "request": request, "lock": lock}
        found = (await (await self._session.connection()).execute(_CLAIM, parameters)).one()
        claimed, fingerprint, status, headers, body = found
        if fingerprint is None:
            return None, claimed
        return Kept(bytes(fingerprint), status, headers, bytes(body)), claimed

    async def keep(self, request: bytes, user_id: str | None, answer: Kept) -> bool:
        """Keep the answer. False where there is one already: whoever sees that has its effect to take back."""
        parameters = {
            "tenant": self._tenant_id,
            "request": request,
            "fingerprint": answer.fingerprint,
            "user": None if user_id is None else self._digest(user_id),
            "status": answer.status,
            "headers": json.dumps(answer.headers),
            "body": answer.body,
        }
        kept: Any = await (await self._session.connection()).execute(_KEEP, parameters)
        return bool(kept.rowcount == 1)

    async def forget_user(self, user_id: str) -> None:
        """Delete what this user was answered, and every answer that holds the user's id as a JSON string."""
        spelled = {json.dumps(user_id, ensure_ascii=ascii_only).encode() for ascii_only in (False, True)}
        connection = await self._session.connection()
        for mention in spelled:
            await connection.execute(
                _FORGET, {"tenant": self._tenant_id, "user": self._digest(user_id), "mention": mention}
            )

    def _digest(self, user_id: str) -> str:
        """What stands for the user: a token outlives its user by seconds, and no late answer may bring the id back."""
        return hashlib.sha256("\0".join([self._tenant_id, user_id]).encode()).hexdigest()


async def forget_expired(pool: Pool) -> int:
    """Delete what is older than a day, of every tenant; how many there were."""
    async with pool.connection() as connection:
        return (await connection.execute(_EXPIRE)).rowcount


# A duplicate can slip in between the snapshot of this statement and its lock: `_KEEP` is what decides.
_CLAIM = text(
    f"""
    SELECT pg_try_advisory_xact_lock(:lock), kept.fingerprint, kept.status, kept.headers, kept.body
    FROM (SELECT) AS request
    LEFT JOIN kept_answers AS kept
        ON kept.tenant_id = :tenant AND kept.request = :request AND kept.created_at > now() - interval '{KEPT_FOR}'
    """  # noqa: S608 - a constant of this module
)

_KEEP = text(
    f"""
    INSERT INTO kept_answers AS kept (tenant_id, request, fingerprint, user_id, status, headers, body)
    VALUES (:tenant, :request, :fingerprint, :user, :status, CAST(:headers AS jsonb), :body)
    ON CONFLICT (tenant_id, request) DO UPDATE
    SET fingerprint = excluded.fingerprint, user_id = excluded.user_id, status = excluded.status,
        headers = excluded.headers, body = excluded.body, created_at = excluded.created_at
    WHERE kept.created_at <= now() - interval '{KEPT_FOR}'
    """  # noqa: S608 - a constant of this module
)

_EXPIRE = f"DELETE FROM kept_answers WHERE created_at <= now() - interval '{KEPT_FOR}'"  # noqa: S608 - the same

_FORGET = text(
    "DELETE FROM kept_answers WHERE tenant_id = :tenant AND (user_id = :user OR position(:mention IN body) > 0)"
)
