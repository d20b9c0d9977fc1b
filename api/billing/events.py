"""Stripe's webhook events: each is verified, stored under its id before anything else, and handled once.

Events come late, twice and in any order, so an event only says that something changed. Handling one means to fetch
the customer's subscriptions from Stripe and to store their present state.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import stripe
import structlog
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.billing.gateway import Gateway
from api.billing.own_checkouts import marked_tenant
from api.billing.repository import tenant_of
from api.billing.synchronise import fetch_subscriptions, store_subscription
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.http.problems import Invalid, Problem

TOLERANCE_SECONDS = 300
RELEVANT_TYPES = ("checkout.session.", "customer.subscription.", "invoice.")
"""Prefixes of the event types that may change a subscription."""
MAX_RETRY = timedelta(hours=1)
"""The longest pause between two attempts to handle an event."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """The fields of an event that handling needs. Nothing else is stored, so no personal data is.

    named_tenant: the tenant in whose name this installation began the checkout that the event is about.
    """

    id: str
    type: str
    created: datetime
    object_id: str | None
    customer_id: str | None
    named_tenant: str | None

    def excerpt(self) -> dict[str, Any]:
        return {"object": self.object_id, "customer": self.customer_id, "tenant": self.named_tenant}


def read_event(payload: bytes, signature: str | None, secrets: Sequence[str]) -> WebhookEvent:
    """Verify and parse the body of a webhook, which any of the secrets may have signed.

    Raises Invalid where the signature is wrong or old, or the body is no event.
    """
    if not any(_is_signed(payload, signature, secret) for secret in secrets):
        raise Invalid.field("Stripe-Signature", "not that of this body, or more than five minutes old")
    try:
        document = json.loads(payload)
        found = document["data"]["object"]
        customer_id = _id_of(found.get("customer"))
        return WebhookEvent(
            id=str(document["id"]),
            type=str(document["type"]),
            created=datetime.fromtimestamp(document["created"], UTC),
            object_id=found.get("id"),
            customer_id=customer_id,
            named_tenant=marked_tenant(secrets, found.get("metadata") or {}, customer_id),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise Invalid("The body is not an event") from error


def _is_signed(payload: bytes, signature: str | None, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(payload, signature, secret, TOLERANCE_SECONDS)
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
    return True


async def receive(database: Database, gateway: Gateway, event: WebhookEvent) -> None:
    """Store the event, and handle it unless it was stored before. Where handling fails, it is tried again later."""
    async with transaction(database) as session:
        is_new = await _store(session, event, gateway.settings.retry_seconds)
    if is_new and event.type.startswith(RELEVANT_TYPES):
        await _attempt(database, gateway, event)


async def handle_pending(database: Database, gateway: Gateway) -> int:
    """Handle the stored events that are due, and return how many were handled.

    An event is pending where its process died or Stripe was unavailable. Several processes may call this at once; none
    takes an event that another is handling.
    """
    handled = 0
    while (event := await _take(database, gateway.settings.retry_seconds)) is not None:
        if not await _attempt(database, gateway, event):
            break  # Stripe may be unavailable, and then the other events would fail too
        handled += 1
    return handled


async def handle(database: Database, gateway: Gateway, event: WebhookEvent) -> None:
    """Store the present state of the customer's subscription, and mark the event handled in the same transaction.

    Raises StripeUnavailable, StripeRefused, UnknownPriceError.
    """
    async with transaction(database) as session:
        tenant_id = event.customer_id and await tenant_of(session, event.customer_id, event.named_tenant)
        if not tenant_id or not event.customer_id:
            log.info("stripe event of no tenant", event_id=event.id, type=event.type)
            await _mark(session, event.id, None)
            return
    fetched = await fetch_subscriptions(database, gateway, event.customer_id)
    async with transaction(database) as session:
        changed_at = event.created if event.type.startswith("customer.subscription.") else None
        await store_subscription(session, TenantScope(tenant_id), fetched, changed_at)
        await _mark(session, event.id, tenant_id)


async def _attempt(database: Database, gateway: Gateway, event: WebhookEvent) -> bool:
    try:
        await handle(database, gateway, event)
    except Exception as error:
        report = log.warning if isinstance(error, Problem) else log.exception
        report("stripe event not handled yet", event_id=event.id, type=event.type, error=repr(error))
        async with database.pool.connection() as connection:
            await connection.execute(_FAILED, {"id": event.id, "error": repr(error)})
        return False
    return True


async def _store(session: AsyncSession, event: WebhookEvent, retry_seconds: float) -> bool:
    """Store the event; returns whether it is new. Other processes leave it alone until `retry_seconds` have passed."""
    values = {
        "id": event.id,
        "type": event.type,
        "created": event.created,
        "payload": json.dumps(event.excerpt()),
        "relevant": event.type.startswith(RELEVANT_TYPES),
        "pause": retry_seconds,
    }
    stored: Any = await (await session.connection()).execute(_STORE, values)
    return bool(stored.rowcount)


async def _take(database: Database, retry_seconds: float) -> WebhookEvent | None:
    """Take the oldest event that is due. Other processes leave it alone until its next retry time."""
    async with database.pool.connection() as connection:
        cursor = await connection.execute(_TAKE, {"pause": retry_seconds, "longest": MAX_RETRY.total_seconds()})
        row = await cursor.fetchone()
    if row is None:
        return None
    id_, type_, created, payload = row
    return WebhookEvent(id_, type_, created, payload["object"], payload["customer"], payload["tenant"])


async def _mark(session: AsyncSession, event_id: str, tenant_id: str | None) -> None:
    await (await session.connection()).execute(_MARK, {"id": event_id, "tenant": tenant_id})


def _id_of(value: Any) -> str | None:
    """The id of an object that Stripe gives as its id or, expanded, as the object itself."""
    return value.get("id") if isinstance(value, dict) else value


_STORE = text(
    """
    INSERT INTO stripe_events (id, type, created, payload, attempts, retry_at, handled_at)
    VALUES (:id, :type, :created, CAST(:payload AS jsonb), CAST(:relevant AS boolean)::int,
        now() + make_interval(secs => :pause), CASE WHEN NOT CAST(:relevant AS boolean) THEN now() END)
    ON CONFLICT (id) DO NOTHING
    """
)

_TAKE = """
UPDATE stripe_events
SET attempts = attempts + 1,
    retry_at = now() + make_interval(secs => least(%(pause)s * power(2, attempts), %(longest)s))
WHERE id = (
    SELECT id FROM stripe_events WHERE handled_at IS NULL AND retry_at <= now()
    ORDER BY received_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id, type, created, payload
"""

_MARK = text("UPDATE stripe_events SET handled_at = now(), tenant_id = :tenant, error = NULL WHERE id = :id")

_FAILED = "UPDATE stripe_events SET error = left(%(error)s, 500) WHERE id = %(id)s"
