"""What an item's metadata may hold, one rule for the API and for imports."""

import math
import re
from typing import Any

import msgspec

MAX_BYTES = 256 * 1024
"""Of the encoded JSON; its full-text vector then stays within PostgreSQL's megabyte."""
MAX_DEPTH = 16
MAX_NUMBER = int(1.7976931348623157e308)
"""What a float64 holds; JSONB gives large floats back as whole numbers, so both have one bound."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def metadata_problem(value: Any, depth: int = 0) -> str | None:
    """Why PostgreSQL and MessagePack could not hold this decoded JSON value, or None where they can."""
    problem: str | None = None
    match value:
        case bool() | None:
            pass
        case str():
            if _UNSTORABLE.search(value):
                problem = "holds a NUL or half of a surrogate pair"
        case float():
            if not math.isfinite(value):
                problem = "holds a number that is not finite"
        case int():
            if not -MAX_NUMBER <= value <= MAX_NUMBER:
                problem = "holds a number past the range of a double"
        case dict() | list() if depth >= MAX_DEPTH:
            problem = f"is nested deeper than {MAX_DEPTH} levels"
        case dict():
            parts = (part for entry in value.items() for part in entry)
            problem = next(filter(None, (metadata_problem(part, depth + 1) for part in parts)), None)
        case list():
            problem = next(filter(None, (metadata_problem(part, depth + 1) for part in value)), None)
        case _:
            problem = f"holds a {type(value).__name__}"
    return problem


def size_problem(value: dict[str, Any]) -> str | None:
    """Whether storable metadata is too large to keep."""
    size = len(msgspec.json.encode(value))
    return f"has {size} bytes; at most {MAX_BYTES} are kept" if size > MAX_BYTES else None
