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
from api.http.bodies import MAX_BODY_VALUES, SMALL, BodyParts, blank_memory, is_batch, too_many_values, values_in
from api.http.problems import Invalid
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
_FIELD = re.compile(r" - at `\$\.(\w+)`$")
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape; the two of a surrogate pair are one match. Group 1 is set where it is half of a pair."""
_MENDED_BYTES = 64 * 1024


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
    async def body(self) -> bytes | memoryview:  # type: ignore[override]
        if not hasattr(self, "_whole"):
            parts = BodyParts(self.scope)
            async for part in self.stream():
                parts.add(part)
            self._whole = parts.whole()
        return self._whole

    async def json(self) -> Any:
        body = await self.body()
        await turn()
        try:
            return split_rows(body)
        except json.JSONDecodeError:
            mended = await _without_half_pairs(body)
            if mended is None:
                raise
        return split_rows(mended)


async def _without_half_pairs(body: bytes | memoryview) -> memoryview | None:
    """The body with NULs for halves of surrogate pairs, which msgspec refuses to skip: a row with either is refused,
    and the other rows are not. It is as long as before. None where it has no half."""
    mended, start, has_halves = blank_memory(len(body)), 0, False
    while start < len(body):
        await turn()
        part = _until_a_quote(body, start)
        mended[start : start + len(part)] = part
        async for escape in in_slices(_ESCAPE.finditer(part)):
            if escape[1]:
                mended[start + escape.start() : start + escape.end()] = b"\\u0000"
                has_halves = True
        start += len(part)
    await turn()
    return mended[: len(body)] if has_halves else None


def _until_a_quote(body: bytes | memoryview, start: int) -> bytes:
    """The next part of a body, which ends where no escape does: before a quote, or where `MAX_ROW_BYTES` have none,
    before a backslash, since their row is refused whatever stands for it."""
    for size in (_MENDED_BYTES, MAX_ROW_BYTES):
        part = bytes(body[start : start + size])
        if start + len(part) == len(body):
            return part
        if (cut := part.rfind(b'"')) > 0:
            return part[:cut]
    cut = part.rfind(b"\\")
    return part[:cut] if cut > 0 else part


class _Rows(msgspec.Struct):
    """The body of a batch. Each of its fields is that of one route."""

    items: list[Raw] | UnsetType = UNSET
    interactions: list[Raw] | UnsetType = UNSET


_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_object = msgspec.json.Decoder(_Rows).decode
_LIST = re.compile(rb"[ \t\r\n]*\[")


def split_rows(body: bytes | memoryview) -> Any:
    """The decoded body, in which each row of a list is still a `msgspec.Raw`.

    Raises JSONDecodeError where the body is not JSON, and Invalid where it is of another shape and large or of too many
    values.
    """
    try:
        if _LIST.match(body):
            return _decode_list(body)
        rows = _decode_object(body)
        return {name: value for name in ("items", "interactions") if (value := getattr(rows, name)) is not UNSET}
    except msgspec.DecodeError as error:
        if len(body) <= SMALL:
            # Either not JSON, or JSON of another shape, of which the schema says what is wrong.
            text = bytes(body)
            if values_in(text) > MAX_BODY_VALUES:
                raise too_many_values() from error
            return json.loads(text)
        if isinstance(error, msgspec.ValidationError):
            named = _FIELD.search(str(error))
            raise Invalid.field(named[1] if named else "body", "Input should be a valid list") from error
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
