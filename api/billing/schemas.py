"""Plans, subscriptions, caps and invoices in requests and responses."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from api.billing.subscriptions import Interval
from api.http.schemas import Instant, PlainText, Schema

MAX_CAP = 1_000_000


def _amount(value: object) -> object:
    """A JSON number as the decimal that was written: 250.1 is 250 dollars and 10 cents, not the nearest float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number with at most two decimals")
    return Decimal(repr(value))


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    Field(ge=0, le=MAX_CAP, max_digits=9, decimal_places=2),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_CAP, "examples": [250.0]}),
]
"""An amount of money in a request, in whole units of the currency with at most two decimals."""


class PlanOut(Schema):
    """A plan that is for sale."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "plan-starter",
                    "name": "Starter",
                    "monthlyPrice": 49,
                    "annualPrice": 470,
                    "requestLimit": 10000,
                    "itemLimit": 1000,
                    "userLimit": 500,
                }
            ]
        }
    )

    id: str
    name: str
    monthly_price: int
    annual_price: int
    request_limit: int | None
    item_limit: int | None
    user_limit: int | None


class SubscriptionOut(Schema):
    """What the tenant is subscribed to."""

    plan_id: str = Field(description="The plan in force", examples=["plan-growth"])
    status: str = Field(
        description="As Stripe names it: `active`, `past_due`, `canceled` ...; `none` where nobody ever subscribed",
        examples=["active"],
    )
    interval: Interval = Field(
        description="How often it is paid; `monthly` without a subscription", examples=["monthly"]
    )
    current_period_start: Instant
    current_period_end: Instant
    cancel_at_period_end: bool


class CheckoutRequest(Schema):
    """The plan and interval to subscribe to."""

    plan_id: PlainText = Field(description="A plan of `GET /api/billing/plans`", examples=["plan-growth"])
    interval: Interval = Field(examples=["monthly"])


class CheckoutOut(Schema):
    """The page on which to pay."""

    checkout_url: str = Field(examples=["https://checkout.stripe.com/pay/cs_..."])


class PortalOut(Schema):
    """The page on which to change card, plan and subscription."""

    portal_url: str = Field(examples=["https://billing.stripe.com/session/..."])


class InvoiceOut(Schema):
    """An invoice. Amounts are in whole units of its currency."""

    id: str = Field(examples=["in_1"])
    number: str | None = Field(description="null while it is a draft", examples=["ABC-0001"])
    status: str | None = Field(examples=["paid"])
    amount_due: float = Field(examples=[149.0])
    amount_paid: float = Field(examples=[149.0])
    currency: str = Field(examples=["usd"])
    created_at: Instant
    hosted_url: str | None = Field(
        description="Stripe's page of the invoice", examples=["https://invoice.stripe.com/i/..."]
    )


class CapRequest(Schema):
    """How much overage may cost in a cycle."""

    cap_amount: Amount


class CapOut(Schema):
    """How much overage may cost in a cycle, and whether it has reached that amount."""

    overage_budget_cap: float = Field(examples=[250.0])
    budget_exceeded: bool


class AuditEntry(Schema):
    """A change of plan, cap or subscription."""

    id: str
    at: Instant
    actor: str = Field(
        description="`user`, `stripe`, `service` by its own rules, or `erased`: a user deleted since", examples=["user"]
    )
    user_id: str | None = Field(description="The user, where the actor is `user`", examples=["user-uuid"])
    action: str = Field(description="What changed: `plan`, `cap` or `subscription`", examples=["cap"])
    before: Any = Field(description="null where there was nothing", examples=[{"overageBudgetCap": 100.0}])
    after: Any = Field(examples=[{"overageBudgetCap": 250.0}])


class Received(Schema):
    """The event is stored, so it need not be sent again."""

    received: bool = True
