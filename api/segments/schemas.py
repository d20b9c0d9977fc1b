"""Segments in requests and responses."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.http.schemas import WHOLE, Instant, Schema
from serving.contracts.filters import FilterError, parse_filter

MAX_NAME = 100
MAX_AT_LEAST = 1_000
MAX_DAYS = 365

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$"),
]


def _parsed(document: dict[str, Any] | None) -> dict[str, Any] | None:
    if document is not None:
        try:
            parse_filter(document)
        except FilterError as error:
            raise PydanticCustomError("filter", "{problem}", {"problem": str(error)}) from error
    return document


class Behaviour(Schema):
    """What a user did, or what was done with an item."""

    model_config = ConfigDict(extra="forbid")

    interaction_types: list[Literal["view", "click", "like", "purchase"]] = Field(
        min_length=1, max_length=4, description="Types of interaction that count", examples=[["purchase"]]
    )
    at_least: Annotated[int, Field(strict=True, ge=1, le=MAX_AT_LEAST), WHOLE] = Field(
        default=1, description="Interactions of these types", examples=[2]
    )
    days: Annotated[int, Field(strict=True, ge=1, le=MAX_DAYS), WHOLE] = Field(
        description="Within so many days before the tenant's newest interaction", examples=[30]
    )


class SegmentBody(Schema):
    """A segment to make, or to put in the place of one."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(examples=["Bought twice in 30 days"])
    kind: Literal["users", "items"] = Field(description="What its members are")
    filter: Annotated[dict[str, Any] | None, AfterValidator(_parsed)] = Field(
        default=None,
        description="A filter on the metadata of items, as in `recommend`: which items are members, or which items a "
        "user's interactions must be with to count",
        examples=[{"category": "Electronics"}],
    )
    behaviour: Behaviour | None = Field(default=None, description="A segment of users needs it")

    @model_validator(mode="after")
    def _says_who_is_in_it(self) -> "SegmentBody":
        if self.behaviour is None and self.kind == "users":
            raise PydanticCustomError("segment", "a segment of users needs a behaviour")
        if self.behaviour is None and self.filter is None:
            raise PydanticCustomError("segment", "a segment of items needs a filter, a behaviour, or both")
        return self


class SegmentOut(Schema):
    """A segment, and how large it was when the pipeline last looked."""

    id: UUID
    name: str = Field(examples=["Bought twice in 30 days"])
    kind: Literal["users", "items"]
    filter: dict[str, Any] | None
    behaviour: Behaviour | None
    size: int | None = Field(
        description="Members when it was last measured; null until the pipeline has done so", examples=[1_250]
    )
    measured_at: Instant | None
    created_at: Instant
    updated_at: Instant
