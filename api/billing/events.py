"""Stripe's events: verified, kept under their id before anything is done, and handled once.

An event says that something changed, never what is true now: events come late, twice and in any order. So handling
one means asking Stripe how the customer's subscription is at this moment, and writing that.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import stripe
import structlog
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from api.billing.gateway import Gateway
from api.billing.repository import tenant_of
from api.billing.synchronise import ask, follow
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.http.problems import Invalid, Problem

TOLERANCE_SECONDS = 300
FOLLOWED = ("checkout.session.", "customer.subscription.", "invoice.")
"""Beginnings of the types that may change a subscription."""
KEPT_DAYS = 90
"""How long the id of a handled event is known: Stripe sends none again after a month."""
MAX_RETRY = timedelta(hours=1)
"""The longest rest between two attempts at an event."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """What handling needs of an event, and all that is kept of it: no name, address or card of anybody."""

    id: str
    type: str
    created: datetime
    object_id: str | None
    customer_id: str | None
    named_tenant: str | None

    def excerpt(self) -> dict[str, Any]:
        return {"object": self.object_id, "customer": self.customer_id, "tenant": self.named_tenant}


def read_event(payload: bytes, signature: str | None, secret: str) -> Event:
    """The event in a webhook's body. Raises Invalid where it is not Stripe's, too old, or none."""
    try:
        stripe.WebhookSignature.verify_header(payload, signature, secret, TOLERANCE_SECONDS)
    except (stripe.SignatureVerificationError, UnicodeDecodeError) as error:
        raise Invalid.field("Stripe-Signature", "not that of this body, or more than five minutes old") from error
    try:
        document = json.loads(payload)
        found = document["data"]["object"]
        metadata = found.get("metadata") or {}
        return Event(
            id=str(document["id"]),
            type=str(document["type"]),
            created=datetime.fromtimestamp(document["created"], UTC),
            object_id=found.get("id"),
            customer_id=_id_of(found.get("customer")),
            named_tenant=found.get("client_reference_id") or metadata.get("tenant"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise Invalid("The body is not an event") from error


async def receive(database: Database, gateway: Gateway, event: Event) -> None:
    """Keep the event, and handle it unless it was kept before. An event that cannot be handled now is tried again."""
    async with transaction(database) as session:
        is_new = await _keep(session, event, gateway.settings.retry_seconds)
    if is_new and event.type.startswith(FOLLOWED):
        await _attempt(database, gateway, event)


async def handle_waiting(database: Database, gateway: Gateway) -> int:
    """Handle what nobody has handled: of a process that died, say, or while Stripe was away. How many were handled.

    Several processes may do this at once: none takes what another is at.
    """
    handled = 0
    while (event := await _take(database, gateway.settings.retry_seconds)) is not None:
        if not await _attempt(database, gateway, event):
            break  # Stripe may be away: the others need not find out too
        handled += 1
    return handled


async def forget_handled(database: Database) -> None:
    """Delete what was handled long ago."""
    async with transaction(database) as session:
        await (await session.connection()).execute(_FORGET, {"days": KEPT_DAYS})


async def handle(database: Database, gateway: Gateway, event: Event) -> None:
    """Have the customer's tenant follow Stripe, and mark the event handled in the same transaction.

    Raises StripeAway, StripeRefused, UnknownPriceError.
    """
    async with transaction(database) as session:
        tenant_id = event.customer_id and await tenant_of(session, event.customer_id, event.named_tenant)
        if not tenant_id or not event.customer_id:
            log.info("an event of nobody here", event_id=event.id, type=event.type)
            await _mark(session, event.id, None)
            return
    answer = await ask(database, gateway, event.customer_id)
    async with transaction(database) as session:
        await follow(session, TenantScope(tenant_id), answer)
        await _mark(session, event.id, tenant_id)


async def _attempt(database: Database, gateway: Gateway, event: Event) -> bool:
    try:
        await handle(database, gateway, event)
    except Exception as error:
        report = log.warning if isinstance(error, Problem) else log.exception
        report("an event waits to be tried again", event_id=event.id, type=event.type, error=repr(error))
        async with database.pool.connection() as connection:
            await connection.execute(_FAILED, {"id": event.id, "error": repr(error)})
        return False
    return True


async def _keep(session: AsyncSession, event: Event, retry_seconds: float) -> bool:
    """Whether the event is a new one. Whoever kept it has it to itself for a while."""
    values = {
        "id": event.id,
        "type": event.type,
        "created": event.created,
        "payload": json.dumps(event.excerpt()),
        "followed": event.type.startswith(FOLLOWED),
        "rest": retry_seconds,
    }
    kept: Any = await (await session.connection()).execute(_KEEP, values)
    return bool(kept.rowcount)


async def _take(database: Database, retry_seconds: float) -> Event | None:
    """The oldest event that waits, for this process alone until the rest after this attempt is over."""
    async with database.pool.connection() as connection:
        cursor = await connection.execute(_TAKE, {"rest": retry_seconds, "most": MAX_RETRY.total_seconds()})
        row = await cursor.fetchone()
    if row is None:
        return None
    id_, type_, created, payload = row
    return Event(id_, type_, created, payload["object"], payload["customer"], payload["tenant"])


async def _mark(session: AsyncSession, event_id: str, tenant_id: str | None) -> None:
    await (await session.connection()).execute(_MARK, {"id": event_id, "tenant": tenant_id})


def _id_of(value: Any) -> str | None:
    """The id of what may have been expanded to the object itself."""
    return value.get("id") if isinstance(value, dict) else value


_KEEP = text(
    """
    INSERT INTO stripe_events (id, type, created, payload, attempts, retry_at, handled_at)
    VALUES (:id, :type, :created, CAST(:payload AS jsonb), CAST(:followed AS boolean)::int,
        now() + make_interval(secs => :rest), CASE WHEN NOT CAST(:followed AS boolean) THEN now() END)
    ON CONFLICT (id) DO NOTHING
    """
)

_TAKE = """
UPDATE stripe_events
SET attempts = attempts + 1, retry_at = now() + make_interval(secs => least(%(rest)s * power(2, attempts), %(most)s))
WHERE id = (
    SELECT id FROM stripe_events WHERE handled_at IS NULL AND retry_at <= now()
    ORDER BY received_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id, type, created, payload
"""

_MARK = text("UPDATE stripe_events SET handled_at = now(), tenant_id = :tenant, error = NULL WHERE id = :id")

_FAILED = "UPDATE stripe_events SET error = left(%(error)s, 500) WHERE id = %(id)s"

_FORGET = text("DELETE FROM stripe_events WHERE handled_at < now() - make_interval(days => :days)")
