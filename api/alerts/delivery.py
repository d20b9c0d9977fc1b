"""Delivers alerts to webhooks and by mail: at least once, with growing pauses, for a day.

The API does it and not the pipeline: it has the client for calls to addresses that tenants name, it runs whether or
not a run of the pipeline does, and several of its processes share the work by their claims.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from api.alerts.mails import MailFailedError, send_mail
from api.alerts.messages import SIGNATURE, mail_of, signature, webhook_body
from api.alerts.repository import AlertRepository, Delivered, DueAlert
from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.http.outgoing import OutgoingClient, OutgoingFailedError, OutgoingRefusedError
from configs.mail import MailSettings

POLL_SECONDS = 5.0
SUCCESS = range(200, 300)

log = structlog.get_logger(__name__)


class AlertDelivery:
    """Delivers the alerts of all tenants."""

    def __init__(self, pool: Pool, client: OutgoingClient, mail: MailSettings) -> None:
        self._alerts = AlertRepository(pool)
        self._client = client
        self._mail = mail

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside the block, due alerts are delivered every `POLL_SECONDS`."""
        async with PeriodicTask("alerts", self.deliver_due, POLL_SECONDS, expected=UNREACHABLE):
            yield

    async def deliver_due(self) -> int:
        """Try to deliver the alerts that are due, and return how many were tried."""
        due = await self._alerts.claim()
        await asyncio.gather(*map(self._attempt, due))
        return len(due)

    async def _attempt(self, alert: DueAlert) -> None:
        errors = await asyncio.gather(self._call(alert), self._write(alert))
        by_webhook, by_mail = (error is None for error in errors)
        failed = "; ".join(error for error in errors if error) or None
        result = Delivered(
            by_webhook=alert.webhook_url is not None and by_webhook,
            by_mail=bool(alert.emails) and by_mail,
            error=failed,
        )
        given_up = await self._alerts.record(alert, result)
        if failed:
            level = log.error if given_up else log.info
            text = "an alert was not delivered within a day and is given up" if given_up else "an alert is tried again"
            level(text, tenant=alert.scope.tenant_id, alert=str(alert.id), event_kind=alert.event, error=failed)

    async def _call(self, alert: DueAlert) -> str | None:
        """Send the alert to the webhook, where it has one to go to. Returns why it was not taken."""
        if alert.webhook_url is None:
            return None
        body = webhook_body(alert)
        headers = {"Content-Type": "application/json", "User-Agent": "RecommendAI"}
        if alert.webhook_secret is not None:
            headers[SIGNATURE] = signature(alert.webhook_secret, body, int(time.time()))
        try:
            answer = await self._client.post(alert.webhook_url, body, headers)
        except (OutgoingRefusedError, OutgoingFailedError) as error:
            return f"webhook: {error}"
        return None if answer.status in SUCCESS else f"webhook: status {answer.status}"

    async def _write(self, alert: DueAlert) -> str | None:
        """Send the alert by mail, where there is somebody to send it to. Returns why it was not taken."""
        if not alert.emails:
            return None
        try:
            refused = await send_mail(self._mail, mail_of(alert, self._mail.sender), alert.emails)
        except MailFailedError as error:
            return f"mail: {error}"
        if refused:
            log.warning("the mail server refused some recipients", tenant=alert.scope.tenant_id, refused=refused)
        return None
