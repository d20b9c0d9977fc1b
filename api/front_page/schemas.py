"""The items of a list in responses."""

from pydantic import Field

from api.http.schemas import Schema


class ItemOfList(Schema):
    """An item of a list. What is sent are `ScoredItem`s of `serving.contracts.messages`, with the same fields."""

    item_id: str = Field(examples=["50"])
    score: float = Field(ge=0, le=1, description="Not increasing down the list; what it means depends on the list")
