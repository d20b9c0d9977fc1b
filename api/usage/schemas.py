"""Usage in the API's responses. Money is in whole units of the currency."""

from pydantic import Field

from api.http.schemas import Instant, Schema


class UsageOut(Schema):
    """What the tenant has used in its billing cycle. A limit of null is no limit."""

    requests_used: int = Field(examples=[45_000])
    request_limit: int | None = Field(
        description="The time-weighted mean of the plans held in this cycle, rounded down", examples=[100_000]
    )
    percent_used: float = Field(description="0 where there is no limit, over 100 in overage", examples=[45.0])
    overage_units: int = Field(description="Requests past the limit", examples=[0])
    overage_amount: float = Field(description="What these requests cost, at most the cap", examples=[0.0])
    overage_budget_cap: int | float = Field(examples=[500])
    budget_exceeded: bool = Field(description="Metered requests are answered with 402", examples=[False])
    items_used: int = Field(examples=[2_340])
    items_limit: int | None = Field(examples=[10_000])
    users_used: int = Field(description="End users, and portal users with an interaction", examples=[850])
    users_limit: int | None = Field(examples=[5_000])
    last_request_at: Instant | None = Field(
        description="Time of the last metered request", examples=["2025-01-15T10:30:45Z"]
    )
