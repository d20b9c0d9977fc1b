"""Items as clients send and receive them."""

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, model_validator

from api.http.batches import MAX_ROWS
from api.http.schemas import Instant, OpaqueId, Schema
from feature_store.metadata import metadata_problem, size_problem


def _storable(metadata: dict[str, Any]) -> dict[str, Any]:
    if (problem := metadata_problem(metadata) or size_problem(metadata)) is not None:
        raise ValueError(problem)
    return metadata


Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_storable),
    Field(description="Any JSON object", examples=[{"title": "Wireless Headphones Pro", "price": 149.99}]),
]


class ItemOut(Schema):
    """An item of the catalogue."""

    id: str
    tenant_id: str
    metadata: dict[str, Any]
    is_active: bool
    created_at: Instant
    updated_at: Instant


class ItemReplacement(Schema):
    """All of an item except its id."""

    metadata: Metadata
    is_active: StrictBool = Field(default=True, description="An inactive item is never recommended")


class NewItem(ItemReplacement):
    id: OpaqueId | None = Field(default=None, description="Your own id; generated where it is left out")


class ItemPatch(Schema):
    """A JSON merge patch (RFC 7396) of an item: a null removes a metadata field, what is not named stays."""

    model_config = ConfigDict(extra="forbid")

    metadata: Annotated[dict[str, Any], AfterValidator(_storable)] = Field(
        default_factory=dict, examples=[{"price": 129.0, "discontinued": None}]
    )
    is_active: StrictBool | None = None


class ItemBatch(Schema):
    """Up to 1,000 new items; each is checked by itself."""

    items: list[Any] = Field(
        min_length=1, max_length=MAX_ROWS, examples=[[{"id": "sku-1", "metadata": {"title": "Headphones"}}]]
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, body: Any) -> Any:
        return {"items": body} if isinstance(body, list) else body
