"""Shared by the batch routes: each row has its own result, and an invalid row does not affect the others.

A body of 16 MB is not decoded as a whole, which would take a second and hundreds of megabytes: it is cut into rows,
which are decoded and validated one by one, in slices (see `api.http.slices`).
"""

import json
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from msgspec import UNSET, Raw, UnsetType
from pydantic import BaseModel, Field, ValidationError

from api.http.authentication import COUNT_REQUESTS, CountRequests
from api.http.bodies import MAX_BODY_VALUES, SMALL, is_batch, too_many_values, values_in
from api.http.schemas import Schema
from api.http.slices import in_slices, turn

Row = TypeVar("Row", bound=BaseModel)
Converted = TypeVar("Converted")
MAX_ROWS = 1_000
ROWS_PER_REQUEST = 50
"""A batch counts in the rate limit as one request for each started 50 rows."""
MAX_ROW_BYTES = 256 * 1024
"""Bound on the text of one row: eight times what an item's metadata may have, for spaces and escapes."""
_MALFORMED = re.compile(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)")
_HALF_PAIR = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
"""The escape of half of a surrogate pair."""
_MENDED_BYTES = 256 * 1024


class BatchResult(Schema):
    """The result of one row."""

    index: int
    status: int = Field(description="The status that the row alone would have been answered with")
    id: str | None = None
    error: str | None = None


class BatchOut(Schema):
    """One result per row, in the order of the rows."""

    results: list[BatchResult]
    succeeded: int
    failed: int

    @classmethod
    def of(cls, results: Iterable[BatchResult]) -> "BatchOut":
        ordered = sorted(results, key=lambda result: result.index)
        succeeded = sum(result.status < 300 for result in ordered)
        return cls(results=ordered, succeeded=succeeded, failed=len(ordered) - succeeded)

    def response(self) -> Response:
        """The answer as it is sent. FastAPI would validate and convert a thousand results anew, and stall the loop."""
        return Response(self.model_dump_json(by_alias=True, exclude_none=True), media_type="application/json")


class BatchRoute(APIRoute):
    """A route class for routers with batch routes: their bodies reach the schemas as rows that are not decoded yet."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if not is_batch(self.path):
            return handle

        async def handle_batch(request: Request) -> Response:
            return await handle(_BatchRequest(request.scope, request.receive))

        return handle_batch


class _BatchRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        await turn()
        try:
            return split_rows(body)
        except json.JSONDecodeError:
            if b"\\u" not in body:
                raise
        return split_rows(await _without_half_pairs(body))


async def _without_half_pairs(body: bytes) -> bytes:
    """The body with NULs for halves of surrogate pairs, which msgspec refuses to skip: a row with either is refused,
    and the other rows are not."""
    cuts = [0]
    while (cut := body.find(b'"', cuts[-1] + _MENDED_BYTES)) >= 0:  # no escape goes across a quote
        cuts.append(cut)
    mended = []
    async for start, end in in_slices(zip(cuts, [*cuts[1:], len(body)], strict=True)):
        mended.append(_HALF_PAIR.sub(rb"\1\\u0000", body[start:end]))
    await turn()
    return b"".join(mended)


class _Rows(msgspec.Struct):
    """The body of a batch. Each of its fields is that of one route."""

    items: list[Raw] | UnsetType = UNSET
    interactions: list[Raw] | UnsetType = UNSET


_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_object = msgspec.json.Decoder(_Rows).decode


def split_rows(body: bytes) -> Any:
    """The decoded body, in which each row of a list is still a `msgspec.Raw`.

    Raises JSONDecodeError where the body is not JSON, and Invalid where it holds too many values and no list of rows.
    """
    try:
        if body.lstrip()[:1] == b"[":
            return _decode_list(body)
        rows = _decode_object(body)
        return {name: value for name in ("items", "interactions") if (value := getattr(rows, name)) is not UNSET}
    except msgspec.DecodeError as error:
        # Either not JSON, or JSON of another shape, of which the schema says what is wrong.
        if len(body) <= SMALL or isinstance(error, msgspec.ValidationError):
            if values_in(body) > MAX_BODY_VALUES:
                raise too_many_values() from error
            return json.loads(body)
        found = _MALFORMED.fullmatch(str(error))
        message, position = (found[1], int(found[2])) if found else (str(error), 0)
        raise json.JSONDecodeError(message, "", position) from error


async def count_rows(request: Request, rows: int) -> None:
    """Count a batch of so many rows in the caller's rate limit, beyond the one request that is counted already.

    Raises the 429 where the batch exceeds the limit.
    """
    further = (rows - 1) // ROWS_PER_REQUEST
    count: CountRequests = request.scope["state"][COUNT_REQUESTS]
    if further > 0 and (refusal := await count(further)) is not None:
        raise refusal


async def read_rows(
    model: type[Row], rows: Sequence[Any], convert: Callable[[Row], Converted]
) -> tuple[dict[int, Converted], list[BatchResult]]:
    """The valid rows by index, converted, and a result with status 400 for each invalid row."""
    valid: dict[int, Converted] = {}
    refused: list[BatchResult] = []
    async for index, row in in_slices(enumerate(rows)):
        try:
            valid[index] = convert(model.model_validate(_decoded(row)))
        except ValidationError as error:
            refused.append(BatchResult(index=index, status=400, error=_message(error)))
        except (ValueError, RecursionError) as error:
            text = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            refused.append(BatchResult(index=index, status=400, error=text))
    await turn()  # for what the caller does next with all rows
    return valid, refused


def _decoded(row: Any) -> Any:
    """Raises ValueError where decoding would take too long."""
    if not isinstance(row, Raw):
        return row
    text = bytes(row)
    if len(text) > MAX_ROW_BYTES:
        raise ValueError(f"has more than {MAX_ROW_BYTES:,} bytes")
    if values_in(text) > MAX_BODY_VALUES:
        raise ValueError(f"has more than {MAX_BODY_VALUES:,} values")
    return json.loads(text)


def _message(error: ValidationError) -> str:
    parts = []
    for found in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in found["loc"])
        text = str(found["msg"]).removeprefix("Value error, ")
        parts.append(f"{place}: {text}" if place else text)
    return "; ".join(parts)
