"""The subscription plans of `plans.yaml`: prices and limits."""

from fractions import Fraction
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

FREE = "free"
"""The plan of tenants without a subscription."""
PLANS_FILE = Path(__file__).with_name("plans.yaml")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Overage(_Frozen):
    """The price of requests past a plan's limit."""

    unit_price_cents: int = Field(alias="unitPriceCents", gt=0, description="price of `unit_size` requests")
    unit_size: int = Field(alias="unitSize", gt=0)
    cap: int = Field(ge=0, description="default bound on a cycle's overage, in whole units of the currency")

    @property
    def unit_price(self) -> Fraction:
        """The exact price of one request in cents."""
        return Fraction(self.unit_price_cents, self.unit_size)


class Plan(_Frozen):
    """One plan. A limit of None means unlimited. Prices are in whole units of the currency."""

    id: str
    name: str
    listed: bool
    monthly_price: int = Field(alias="monthlyPrice", ge=0)
    annual_price: int = Field(alias="annualPrice", ge=0)
    request_limit: int | None = Field(alias="requestLimit", gt=0)
    item_limit: int | None = Field(alias="itemLimit", gt=0)
    user_limit: int | None = Field(alias="userLimit", gt=0)
    overage: Overage | None = Field(description="None: requests past the limit are refused")


@cache
def plans() -> dict[str, Plan]:
    """All plans by id, in the order of the file."""
    document = yaml.safe_load(PLANS_FILE.read_text())
    return {each.id: each for each in map(Plan.model_validate, document["plans"])}


def plan(id_: str) -> Plan:
    """The plan with this id. Raises LookupError: a plan with subscribers must stay in the file, unlisted."""
    if (found := plans().get(id_)) is None:
        raise LookupError(
            f"a tenant is on the plan {id_!r}, which {PLANS_FILE.name} lacks: put the plan back, unlisted"
        )
    return found
