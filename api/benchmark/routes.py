"""A no-op to measure the other routes against. It is there only where `BENCHMARK_ROUTES` is set."""

from typing import Any

from fastapi import APIRouter

PATH = "/benchmark/noop"

router = APIRouter(tags=["benchmark"])


@router.post(PATH, summary="Do nothing", include_in_schema=False)
async def noop(body: dict[str, Any]) -> dict[str, Any]:
    """Answer the body: what a POST costs before it does anything."""
    return body
