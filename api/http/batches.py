"""Shared by the batch routes: each row has its own result, and an invalid row does not affect the others."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from api.http.schemas import Schema

Row = TypeVar("Row", bound=BaseModel)
MAX_ROWS = 1_000


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


def read_rows(model: type[Row], rows: Sequence[Any]) -> tuple[dict[int, Row], list[BatchResult]]:
    """The valid rows by index, and a result with status 400 for each invalid row."""
    valid: dict[int, Row] = {}
    refused: list[BatchResult] = []
    for index, row in enumerate(rows):
        try:
            valid[index] = model.model_validate(row)
        except ValidationError as error:
            refused.append(BatchResult(index=index, status=400, error=_message(error)))
    return valid, refused


def _message(error: ValidationError) -> str:
    parts = []
    for found in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in found["loc"])
        text = str(found["msg"]).removeprefix("Value error, ")
        parts.append(f"{place}: {text}" if place else text)
    return "; ".join(parts)
