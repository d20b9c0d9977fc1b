"""An alert as the signed body of a webhook, and as a mail."""

import hashlib
import hmac
import json
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from api.alerts.repository import DueAlert
from api.http.schemas import rfc3339

SIGNATURE = "X-RecommendAI-Signature"


def webhook_body(alert: DueAlert) -> bytes:
    """The JSON that a webhook gets. Its `id` is the same in every attempt, so that a receiver can drop repetitions."""
    return json.dumps(
        {
            "id": str(alert.id),
            "tenantId": alert.scope.tenant_id,
            "event": alert.event,
            "subject": alert.subject,
            "createdAt": rfc3339(alert.created_at),
            "facts": alert.facts,
        }
    ).encode()


def signature(secret: str, body: bytes, at: int) -> str:
    """The value of the header `SIGNATURE`: `t=<at>,v1=<HMAC-SHA256 of "<at>.<body>">`, as Stripe signs its webhooks.

    at: seconds since the epoch, by which a receiver refuses a body that is sent again later.
    """
    signed = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256)
    return f"t={at},v1={signed.hexdigest()}"


def mail_of(alert: DueAlert, sender: str) -> EmailMessage:
    """The alert as a mail in plain text.

    Its headers have one line each: white space of the subject becomes single spaces, addresses were checked when they
    were set, and the policy raises ValueError for any other value with a line break.
    """
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = " ".join(f"[{alert.scope.tenant_id}] {alert.subject}".split())
    mail["From"] = sender
    mail["To"] = ", ".join(alert.emails)
    mail["Date"] = format_datetime(alert.created_at)
    mail["Message-ID"] = f"<{alert.id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    facts = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in alert.facts.items()]
    lines = [
        alert.subject,
        "",
        *facts,
        "",
        f"event: {alert.event}",
        f"tenant: {alert.scope.tenant_id}",
        f"time: {rfc3339(alert.created_at)}",
        f"id: {alert.id}",
    ]
    mail.set_content("\n".join(lines) + "\n")
    return mail
