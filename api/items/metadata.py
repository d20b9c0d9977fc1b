"""What an item's metadata may hold, one rule for the API and for imports."""

import math
import re
from typing import Any

MAX_BYTES = 256 * 1024
"""Of the encoded JSON; its full-text vector then stays within PostgreSQL's megabyte."""
MAX_DEPTH = 16
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def metadata_problem(value: Any, depth: int = 0) -> str | None:
    """Why PostgreSQL and MessagePack could not hold this decoded JSON value, or None where they can."""
    match value:
        case bool() | None:
            return None
        case str():
            return "holds a NUL or half of a surrogate pair" if _UNSTORABLE.search(value) else None
        case float():
            return None if math.isfinite(value) else "holds a number that is not finite"
        case int():
            return None if MIN_INTEGER <= value <= MAX_INTEGER else "holds a whole number past 64 bits"
        case dict() | list():
            if depth >= MAX_DEPTH:
                return f"is nested deeper than {MAX_DEPTH} levels"
            parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            return next((problem for part in parts if (problem := metadata_problem(part, depth + 1))), None)
    return f"holds a {type(value).__name__}"
