"""Recommendation records in responses."""

from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.http.families import RecordedFamily
from api.http.schemas import Instant, Schema

_EXAMPLE: JsonDict = {
    "id": "0198c0de-0000-7000-8000-000000000000",
    "userId": "user-uuid",
    "itemId": "item-uuid",
    "score": 0.92,
    "reason": "Based on your interaction history",
    "createdAt": "2025-01-15T10:30:00Z",
    "metadata": {"title": "Wireless Headphones Pro", "category": "Electronics", "price": 149.99},
}


class ShownOut(Schema):
    """An item recommended to a user."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: UUID
    user_id: str
    item_id: str
    score: float = Field(ge=0, le=1)
    reason: str
    created_at: Instant
    metadata: dict[str, Any] = Field(description="The item's metadata as it is now")


class RecordOut(ShownOut):
    """A record of an item recommended to a user, with the family of models that was requested."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_EXAMPLE, "algorithm": "hybrid"}]})

    algorithm: RecordedFamily = Field(description="`popularity` where a fallback answered")
