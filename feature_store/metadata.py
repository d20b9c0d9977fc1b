"""The rule of what an item's metadata may hold, for the API and for imports."""

import math
import re
from typing import Any

import msgspec

MAX_BYTES = 256 * 1024
"""Bound on the encoded JSON. It keeps the full-text vector within the megabyte that PostgreSQL allows."""
MAX_DEPTH = 16
MAX_NUMBER = int(1.7976931348623157e308)
"""The largest float64. JSONB returns large floats as whole numbers, so both kinds of number have this bound."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def metadata_problem(value: Any, depth: int = 0) -> str | None:
    """Why PostgreSQL or MessagePack cannot hold this decoded JSON value, or None where both can."""
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
    """Why metadata is too large to be stored, or None where it is not."""
    size = len(msgspec.json.encode(value))
    return f"has {size} bytes; at most {MAX_BYTES} are kept" if size > MAX_BYTES else None
