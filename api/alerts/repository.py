"""The rows of alerts: which are due, and what became of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from api.audit.repository import AuditEvent, AuditTrail
from api.database.engine import Pool
from api.database.origin import SERVICE
from api.database.scope import TenantScope
from configs.tenant_pipeline import TenantPipeline

AT_ONCE = 20
"""Alerts that are claimed, and delivered, together."""
PER_TENANT = 4
"""How many of them may be of one tenant, whose slow webhook then holds up few others."""
GIVE_UP_AFTER = "24 hours"


@dataclass(frozen=True)
class DueAlert:
    """An alert that this process delivers, with the channels that its tenant has set now."""

    scope: TenantScope
    id: UUID
    created_at: datetime
    event: str
    subject: str
    facts: dict[str, Any]
    webhook_url: str | None  # None: none is set, the webhook has it already, or the event is not wanted
    webhook_secret: str | None
    emails: tuple[str, ...]  # empty for the same reasons


@dataclass(frozen=True)
class Delivered:
    """What an attempt brought about. error: of the channels that did not take the alert; None where all did."""

    by_webhook: bool = False
    by_mail: bool = False
    error: str | None = None


class AlertRepository:
    """All tenants' alerts, so it takes no scope. Only the delivery in the background uses it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self) -> list[DueAlert]:
        """Alerts that are due. No other process gets them until their next attempt is due, should this one die."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_CLAIM)
            return [_due(*row) for row in await cursor.fetchall()]

    async def record(self, alert: DueAlert, result: Delivered) -> bool:
        """Store the outcome of an attempt. Returns whether the alert is given up, which the audit trail then says."""
        parameters = {
            "tenant": alert.scope.tenant_id,
            "id": alert.id,
            "webhook": result.by_webhook,
            "mail": result.by_mail,
            "error": result.error,
        }
        async with self._pool.connection() as connection, connection.transaction():
            row = await (await connection.execute(_RECORD, parameters)).fetchone()
            given_up = row is not None and bool(row[0])
            if given_up:
                detail = {"event": alert.event, "alertId": str(alert.id), "error": result.error}
                event = AuditEvent("alert.failed", alert.scope.tenant_id, "tenant", detail)
                await AuditTrail(connection, alert.scope).add(event, SERVICE)
        return given_up


def _due(
    tenant_id: str,
    id_: UUID,
    created_at: datetime,
    event: str,
    subject: str,
    facts: dict[str, Any],
    has_webhook: bool,
    has_mail: bool,
    settings: dict[str, Any] | None,
    secret: str | None,
) -> DueAlert:
    channels = TenantPipeline.stored(settings or {}).alerts
    is_wanted = event in channels.events
    return DueAlert(
        TenantScope(tenant_id),
        id_,
        created_at,
        event,
        subject,
        facts,
        webhook_url=channels.webhook_url if is_wanted and not has_webhook else None,
        webhook_secret=secret,
        emails=channels.emails if is_wanted and not has_mail else (),
    )


# The pause doubles from a minute to two hours. The conditions on `alerts` are repeated where rows are locked, because
# another process may have claimed a row since `due` was read.
_IS_DUE = "alerts.finished_at IS NULL AND alerts.next_attempt_at <= now()"
_CLAIM = f"""
WITH due AS (
    SELECT tenant_id, id, next_attempt_at,
        row_number() OVER (PARTITION BY tenant_id ORDER BY next_attempt_at, id) AS place
    FROM alerts WHERE {_IS_DUE}
), picked AS (
    SELECT alerts.tenant_id, alerts.id FROM alerts JOIN due USING (tenant_id, id)
    WHERE due.place <= {PER_TENANT} AND {_IS_DUE}
    ORDER BY due.place, due.next_attempt_at LIMIT {AT_ONCE}
    FOR UPDATE OF alerts SKIP LOCKED
), claimed AS (
    UPDATE alerts SET
        attempts = attempts + 1,
        next_attempt_at = now() + least(interval '1 minute' * power(2, least(attempts, 7)), interval '2 hours')
    FROM picked WHERE alerts.tenant_id = picked.tenant_id AND alerts.id = picked.id
    RETURNING alerts.*
)
SELECT claimed.tenant_id, claimed.id, claimed.created_at, claimed.event, claimed.subject, claimed.facts,
    claimed.webhook_at IS NOT NULL, claimed.mail_at IS NOT NULL,
    pipeline_settings.settings, pipeline_settings.webhook_secret
FROM claimed LEFT JOIN pipeline_settings ON pipeline_settings.tenant_id = claimed.tenant_id
ORDER BY claimed.created_at
"""  # noqa: S608 - constants of this module

_RECORD = f"""
UPDATE alerts SET
    webhook_at = CASE WHEN %(webhook)s THEN now() ELSE webhook_at END,
    mail_at = CASE WHEN %(mail)s THEN now() ELSE mail_at END,
    error = CAST(%(error)s AS text),
    finished_at = CASE
        WHEN CAST(%(error)s AS text) IS NULL OR next_attempt_at > created_at + interval '{GIVE_UP_AFTER}' THEN now()
    END
WHERE tenant_id = %(tenant)s AND id = %(id)s AND finished_at IS NULL
RETURNING error IS NOT NULL AND finished_at IS NOT NULL
"""  # noqa: S608 - constants of this module
