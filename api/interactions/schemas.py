"""Interactions as clients send them."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StrictBool, model_validator

from api.http.batches import MAX_ROWS
from api.http.schemas import AwareInstant, Instant, OpaqueId, Schema

MAX_AHEAD = timedelta(minutes=5)
SMALLEST = 2.0**-126
"""The smallest weight that a `real` holds at full precision. PostgreSQL refuses much smaller ones."""
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def plausible(moment: datetime) -> datetime:
    """The time of an interaction. Raises ValueError where it cannot be one."""
    if moment > datetime.now(UTC) + MAX_AHEAD:
        raise ValueError("lies more than 5 minutes ahead")
    if moment < EARLIEST:
        raise ValueError("lies before 1970")
    return moment


def storable(value: float) -> float:
    """The weight as a `real` holds it."""
    return 0.0 if value < SMALLEST else value


class NewInteraction(Schema):
    """What a user did with an item."""

    user_id: OpaqueId = Field(examples=["user-abc"])
    item_id: OpaqueId = Field(examples=["50"])
    interaction_type: Literal["view", "click", "like", "purchase"] = Field(examples=["purchase"])
    value: Annotated[float, Field(strict=True, ge=0, le=1), AfterValidator(storable)] | None = Field(
        default=None, description="Weight; that of the type where left out", examples=[1.0]
    )
    timestamp: Annotated[AwareInstant, AfterValidator(plausible)] | None = Field(
        default=None, description="When it happened; now where left out", examples=["2025-01-15T10:30:00Z"]
    )
    recommendation_id: UUID | None = Field(
        default=None, description="`X-Recommendation-Id` of the answer that led to it"
    )
    create_item: StrictBool = Field(default=False, description="Create an item with this id where there is none")


class InteractionOut(Schema):
    """The acknowledgement: the interaction is stored and counts in the user's next recommendation."""

    success: bool
    interaction_id: UUID
    timestamp: Instant


class RecordedInteraction(Schema):
    """An interaction as it is stored."""

    interaction_id: UUID = Field(validation_alias="id")
    user_id: str
    item_id: str
    interaction_type: Literal["view", "click", "like", "purchase"]
    value: float | None = Field(description="As it was sent; null: the type's weight counts")
    timestamp: Instant = Field(validation_alias="occurred_at")
    recommendation_id: UUID | None


class InteractionBatch(Schema):
    """Up to 1,000 interactions; each is checked by itself."""

    interactions: list[Any] = Field(
        min_length=1,
        max_length=MAX_ROWS,
        examples=[[{"userId": "user-abc", "itemId": "50", "interactionType": "like"}]],
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, body: Any) -> Any:
        return {"interactions": body} if isinstance(body, list) else body
