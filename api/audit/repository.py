"""The rows of the audit trail."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import col, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.references import ANONYMOUS, ERASED, TargetKind, actor_of, user_reference
from api.audit.tables import AuditRow
from api.database.engine import Connection
from api.database.erasure_lock import ERASE_ALONE_IN_TENANT, NO_ERASURE_IN_TENANT
from api.database.origin import Origin
from api.database.scope import TenantScope

ROWS_PER_HOUR = 20
"""Logins, and failures to log in, of one user and hour that are rows. One more row counts the rest of that hour."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What happened. `detail` never holds an e-mail address, a secret, or the id of a user."""

    action: str
    target: str | None = None  # of a user: its id
    target_kind: TargetKind | None = None
    detail: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to list. `action` may be a group: `key` stands for `key.created`, `key.rotated` and so on."""

    action: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None  # exclusive


@dataclass(slots=True)
class FailedAttempts:
    """Failures of one user to log in since the last write: the first ones, and how many followed."""

    first: list[tuple[datetime, str | None]] = field(default_factory=list)  # time, address
    more: int = 0


class AuditTrail:
    """Writes the audit trail of one tenant, in the transaction of this connection."""

    def __init__(self, connection: Connection, scope: TenantScope) -> None:
        self._connection = connection
        self._tenant_id = scope.tenant_id

    async def add(self, event: AuditEvent, origin: Origin) -> None:
        """Write an entry. A user who was erased before is written as such, and an erasure that comes after finds it."""
        await self._run(NO_ERASURE_IN_TENANT)
        about_user = event.target_kind == "user"
        await self._run(
            _ADD,
            action=event.action,
            actor=actor_of(origin),
            actor_id=origin.user_id,
            kind=event.target_kind,
            target=user_reference(event.target) if about_user and event.target is not None else event.target,
            target_id=event.target if about_user else None,
            ip=origin.address,
            detail=None if event.detail is None else json.dumps(event.detail),
        )

    async def add_login(self, user_id: str, origin: Origin) -> None:
        """Write that the user has logged in. The caller holds a lock on the user's row."""
        await self._run(NO_ERASURE_IN_TENANT)
        await self._add_or_count("login.succeeded", user_id, user_reference(user_id), None, origin.address)

    async def add_failures(self, user_id: str, failed: FailedAttempts) -> None:
        """Write that somebody failed to log in as the user. Callers take turns: see `lock_failures`."""
        await self._run(NO_ERASURE_IN_TENANT)
        for at, address in failed.first:
            await self._add_or_count("login.failed", user_id, ANONYMOUS, at, address)
        if failed.more:
            last, _ = failed.first[-1]
            await self._add_or_count("login.failed", user_id, ANONYMOUS, last, None, only_count=failed.more)

    async def forget_user(self, user_id: str, email: str | None = None) -> None:
        """Remove the user from the trail. Call it in the transaction of the erasure, after the user's row is deleted.

        The entries stay. The address of an entry goes where it is the user's: where the user acted, or somebody tried
        to log in as the user. Texts of a detail that name the user go too.
        """
        await self._run(ERASE_ALONE_IN_TENANT)
        await self._run(_FORGET, reference=user_reference(user_id), erased=ERASED, anonymous=ANONYMOUS)
        await self._run(_FORGET_NAMES, words=[word for word in (user_id, email) if word], erased=ERASED)

    async def _add_or_count(
        self, action: str, user_id: str, actor: str, at: datetime | None, address: str | None, only_count: int = 0
    ) -> None:
        """Add a row about a login, or count it in the hour's last row. Nothing is written of who is erased by now.

        at: None is now, by the database's clock.
        only_count: so many are counted, and no row is added for one.
        """
        await self._run(
            _ADD_OR_COUNT,
            action=action,
            user=user_id,
            target=user_reference(user_id),
            actor=actor,
            at=at,
            ip=address,
            most=0 if only_count else ROWS_PER_HOUR,
            counted=only_count or 1,
        )

    async def lock_failures(self) -> None:
        """No other process writes failures of the tenant until the transaction ends, as rows of an hour are counted."""
        await self._run(_LOCK_FAILURES)

    async def _run(self, statement: str, **parameters: Any) -> None:
        await self._connection.execute(statement, {"tenant": self._tenant_id, **parameters})


class AuditRepository:
    """Reads the audit trail of one tenant."""

    def __init__(self, session: AsyncSession, scope: TenantScope) -> None:
        self._session = session
        self._tenant_id = scope.tenant_id

    async def page(self, wanted: AuditFilter, offset: int, limit: int) -> tuple[Sequence[AuditRow], int]:
        """A page of the entries, newest first, and how many there are."""
        condition = [col(AuditRow.tenant_id) == self._tenant_id]
        if wanted.action is not None:
            group = col(AuditRow.action).startswith(f"{wanted.action}.", autoescape=True)
            condition.append(or_(col(AuditRow.action) == wanted.action, group))
        if wanted.actor is not None:
            condition.append(col(AuditRow.actor) == wanted.actor)
        if wanted.since is not None:
            condition.append(col(AuditRow.at) >= wanted.since)
        if wanted.until is not None:
            condition.append(col(AuditRow.at) < wanted.until)
        total = (await self._session.exec(select(func.count()).select_from(AuditRow).where(*condition))).one()
        newest = (col(AuditRow.at).desc(), col(AuditRow.id))
        statement = select(AuditRow).where(*condition).order_by(*newest).offset(offset).limit(limit)
        return (await self._session.exec(statement)).all(), total

    async def last_version(self, kind: TargetKind, target: str) -> int:
        """The `version` in the detail of the newest entry about a target that has one; 0 where none has."""
        version = col(AuditRow.detail)["version"].as_integer()
        own = [col(AuditRow.tenant_id) == self._tenant_id, col(AuditRow.target) == target]
        statement = select(version).where(*own, col(AuditRow.target_kind) == kind, version.is_not(None))
        return (await self._session.exec(statement.order_by(col(AuditRow.at).desc()).limit(1))).first() or 0


_LOCK_FAILURES = "SELECT pg_advisory_xact_lock(hashtextextended('failed logins/' || %(tenant)s, 0))"

_IS_THERE = "EXISTS (SELECT FROM users WHERE tenant_id = %(tenant)s AND id = CAST({user} AS text))"
_ACTOR_STAYS = f"(CAST(%(actor_id)s AS text) IS NULL OR {_IS_THERE.format(user='%(actor_id)s')})"
_TARGET_STAYS = f"(CAST(%(target_id)s AS text) IS NULL OR {_IS_THERE.format(user='%(target_id)s')})"

_ADD = f"""
INSERT INTO audit_entries (tenant_id, action, actor, target_kind, target, ip, detail)
SELECT %(tenant)s, %(action)s, CASE WHEN {_ACTOR_STAYS} THEN %(actor)s ELSE '{ERASED}' END, %(kind)s,
    CASE WHEN {_TARGET_STAYS} THEN CAST(%(target)s AS text) ELSE '{ERASED}' END,
    CASE WHEN {_ACTOR_STAYS} THEN CAST(%(ip)s AS text) ELSE '{ERASED}' END, CAST(%(detail)s AS jsonb)
"""

_AT = "coalesce(CAST(%(at)s AS timestamptz), clock_timestamp())"

_OF_THE_HOUR = f"""
tenant_id = %(tenant)s AND target_kind = 'user' AND target = %(target)s AND action = %(action)s
    AND at >= date_trunc('hour', {_AT})
"""

_ADD_OR_COUNT = f"""
WITH written AS (
    SELECT count(*) AS rows FROM (SELECT FROM audit_entries WHERE {_OF_THE_HOUR} LIMIT %(most)s) AS of_hour
), grown AS (
    UPDATE audit_entries SET detail = jsonb_build_object('more', CAST(detail ->> 'more' AS bigint) + %(counted)s)
    WHERE {_OF_THE_HOUR} AND jsonb_exists(detail, 'more') AND (SELECT rows FROM written) >= %(most)s
    RETURNING id
)
INSERT INTO audit_entries (tenant_id, at, action, actor, target_kind, target, ip, detail)
SELECT %(tenant)s, {_AT}, %(action)s, %(actor)s, 'user', %(target)s,
    CASE WHEN rows < %(most)s THEN CAST(%(ip)s AS text) END,
    CASE WHEN rows >= %(most)s THEN jsonb_build_object('more', CAST(%(counted)s AS bigint)) END
FROM written
WHERE (rows < %(most)s OR NOT EXISTS (SELECT FROM grown))
    AND EXISTS (SELECT FROM users WHERE tenant_id = %(tenant)s AND id = %(user)s AND created_at <= {_AT})
"""  # noqa: S608 - constants of this module

_FORGET = """
UPDATE audit_entries SET
    ip = CASE
        WHEN ip IS NOT NULL AND (
            actor = %(reference)s OR (actor = %(anonymous)s AND target_kind = 'user' AND target = %(reference)s)
        ) THEN %(erased)s
        ELSE ip
    END,
    actor = CASE WHEN actor = %(reference)s THEN %(erased)s ELSE actor END,
    target = CASE WHEN target_kind = 'user' AND target = %(reference)s THEN %(erased)s ELSE target END
WHERE tenant_id = %(tenant)s AND (actor = %(reference)s OR (target_kind = 'user' AND target = %(reference)s))
"""

# The names of API keys are the only text of a detail that people write. A short id may be part of any word.
_FORGET_NAMES = """
UPDATE audit_entries SET detail = jsonb_set(detail, '{name}', to_jsonb(CAST(%(erased)s AS text)))
WHERE tenant_id = %(tenant)s AND target_kind = 'key' AND EXISTS (
    SELECT FROM unnest(CAST(%(words)s AS text[])) AS given (word)
    WHERE detail ->> 'name' = word OR (length(word) >= 6 AND position(lower(word) IN lower(detail ->> 'name')) > 0)
)
"""
