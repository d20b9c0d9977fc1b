"""The subscription plans of `plans.yaml`: what each costs and what it limits."""

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

PLANS_FILE = Path(__file__).with_name("plans.yaml")


class Plan(BaseModel):
    """One plan. A limit of None is no limit; prices are whole units of the currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    listed: bool
    monthly_price: int = Field(alias="monthlyPrice", ge=0)
    annual_price: int = Field(alias="annualPrice", ge=0)
    request_limit: int | None = Field(alias="requestLimit")
    item_limit: int | None = Field(alias="itemLimit")
    user_limit: int | None = Field(alias="userLimit")


@cache
def plans() -> dict[str, Plan]:
    """Every plan by id, in the order of the file."""
    document = yaml.safe_load(PLANS_FILE.read_text())
    return {plan.id: plan for plan in map(Plan.model_validate, document["plans"])}
