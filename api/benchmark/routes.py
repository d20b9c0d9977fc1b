"""A route that does nothing, for benchmarks to compare others with. It exists only where `BENCHMARK_ROUTES` is set."""

from typing import Any

from fastapi import APIRouter

PATH = "/benchmark/noop"

router = APIRouter(tags=["benchmark"])


@router.post(PATH, summary="Do nothing", include_in_schema=False)
async def noop(body: dict[str, Any]) -> dict[str, Any]:
    """Answer the body, to measure the cost of a POST that has no effect."""
    return body
