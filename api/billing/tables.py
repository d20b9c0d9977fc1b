"""A tenant's billing: its subscription at Stripe, its cap, its overage charges, events and audit."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Index, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class Subscription(Table, table=True):
    """A tenant's customer at Stripe and the last known state of its subscription; at most one row per tenant.

    The customer exists before the subscription: until then the columns of the subscription are null.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint("interval IN ('monthly', 'annual')", name="interval"),
        Index("subscriptions_customer_id_key", "customer_id", unique=True),
        Index("subscriptions_subscription_id_key", "subscription_id", unique=True),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    customer_id: str = text_column()
    subscription_id: str | None = text_column(default=None, nullable=True)
    plan_id: str | None = text_column(default=None, nullable=True)
    interval: str | None = text_column(default=None, nullable=True)
    status: str | None = text_column(default=None, nullable=True)  # as Stripe names it
    current_period_start: datetime | None = timestamptz(nullable=True)
    current_period_end: datetime | None = timestamptz(nullable=True)
    billing_cycle_anchor: datetime | None = timestamptz(nullable=True)
    # That of the months that usage is counted in: set when the subscription begins, and never moved.
    anchor: datetime | None = timestamptz(nullable=True)
    cancel_at_period_end: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=false()))
    past_due_since: datetime | None = timestamptz(nullable=True)
    # When this state was fetched. A state that was fetched earlier is not stored.
    as_of: datetime | None = timestamptz(nullable=True)


class TenantBilling(Table, table=True):
    """The cap that a tenant has set. Without a row, the cap of its plan applies."""

    __tablename__ = "billing_settings"
    __table_args__ = (CheckConstraint("overage_cap_cents >= 0", name="overage_cap_cents"),)

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    overage_cap_cents: int = Field(sa_column=Column(BigInteger, nullable=False))
    changed_at: datetime = timestamptz(default_now=True)


class StripeEvent(Table, table=True):
    """An event of Stripe, stored before it is handled, so that it is handled once however often it is sent."""

    __tablename__ = "stripe_events"
    __table_args__ = (
        Index("stripe_events_unhandled_idx", "received_at", postgresql_where=text("handled_at IS NULL")),
        Index("stripe_events_tenant_id_idx", "tenant_id"),
        Index("stripe_events_handled_idx", "handled_at"),
    )

    id: str = text_column(primary_key=True)
    tenant_id: str | None = text_column(default=None, nullable=True)  # null: of no tenant here, or not known yet
    type: str = text_column()
    created: datetime = timestamptz()
    payload: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    received_at: datetime = timestamptz(default_now=True)
    handled_at: datetime | None = timestamptz(nullable=True)
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    # Before this time a process is handling the event, or the event waits for the next attempt.
    retry_at: datetime = timestamptz(default_now=True)
    error: str | None = text_column(default=None, nullable=True)


class BillingAudit(Table, table=True):
    """A change of plan, cap or subscription."""

    __tablename__ = "billing_audit"
    __table_args__ = (Index("billing_audit_at_idx", "tenant_id", text("at DESC")),)

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: UUID = Field(primary_key=True, sa_column_kwargs={"server_default": text("gen_random_uuid()")})
    at: datetime = timestamptz(default_now=True)
    actor: str = text_column()
    action: str = text_column()
    before: Any = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
    after: Any = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))


class OverageCharge(Table, table=True):
    """The charge for a cycle's overage, and its invoice item at Stripe."""

    __tablename__ = "overage_charges"
    __table_args__ = (CheckConstraint("amount_cents >= 0", name="amount_cents"),)

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    cycle_start: datetime = timestamptz(primary_key=True)
    units: int = Field(sa_column=Column(BigInteger, nullable=False))
    amount_cents: int = Field(sa_column=Column(BigInteger, nullable=False))
    invoice_item_id: str | None = text_column(default=None, nullable=True)
    reported_at: datetime | None = timestamptz(nullable=True)
