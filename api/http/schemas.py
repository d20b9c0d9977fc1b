"""Shared by the schemas of all domains: camelCase, RFC 3339 times, opaque ids and pages."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

Row = TypeVar("Row")

ENCODED_SLASH = "\0"
"""Stands for a percent-encoded `/` in a decoded path. No legal id contains it (see `api.http.paths`)."""


def rfc3339(moment: datetime) -> str:
    """`2025-01-15T10:30:00Z`, with microseconds where there are any. Raises ValueError for a time without zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


Instant = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in UTC, written as RFC 3339 with Z. For times that clients send, use `AwareInstant`."""

OpaqueId = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""An id that a client chose: 1-256 characters of any script, without control characters."""

PathId = Annotated[OpaqueId, BeforeValidator(lambda value: str(value).replace(ENCODED_SLASH, "/"))]
"""An opaque id in a path. It may be percent-encoded, and may contain `/`."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For strict integer fields, after their bounds: accepts 5.0, which JSON Schema counts as an integer."""

MAX_TEXT = 1024
PlainText = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=r"^[^\x00]*$")]
"""Text that PostgreSQL can store: at most 1,024 characters, without NUL."""


class Schema(BaseModel):
    """Base of requests and responses: snake_case in Python, camelCase in JSON."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        from_attributes=True,
        ser_json_inf_nan="null",
        allow_inf_nan=False,
    )


class Page(Schema, Generic[Row]):
    """One page of a list, and how many rows the whole list has."""

    data: list[Row]
    total: int
    page: int
    page_size: int


class PageParams(Schema):
    """The page of a list that is requested."""

    page: int
    page_size: int

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.page_size


async def page_params(
    page: Annotated[int, Query(ge=1, le=1_000_000, description="Page number")] = 1,
    page_size: Annotated[int, Query(alias="pageSize", ge=1, le=100, description="Results per page")] = 20,
) -> PageParams:
    """Dependency: `page` and `pageSize`."""
    return PageParams(page=page, page_size=page_size)


Paging = Annotated[PageParams, Depends(page_params)]


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone: end it in Z or an offset such as +02:00")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside of the calendar") from error


AwareInstant = Annotated[Instant, AfterValidator(_aware)]
"""A time that a client sends. It needs an offset."""


def _written_out(value: object) -> object:
    is_number = isinstance(value, int | float)
    if is_number or (isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\dT", value, re.IGNORECASE | re.ASCII)):
        raise ValueError("a time is written as in RFC 3339, such as 2026-01-31T12:00:00Z")
    return value


WrittenInstant = Annotated[AwareInstant, BeforeValidator(_written_out)]
"""The same, and no number. pydantic alone takes one for seconds since 1970, in a query string too."""

Json = dict[str, Any]
