"""The rule of what an item's metadata may hold, for the API and for imports."""

import math
import re
from itertools import chain
from typing import Any

import msgspec

MAX_BYTES = 32 * 1024
"""Bound on the encoded JSON. Rows that an earlier version stored may be larger; they are served as they are."""
MAX_DEPTH = 16
MAX_NUMBER = int(1.7976931348623157e308)
"""The largest float64. JSONB returns large floats as whole numbers, so both kinds of number have this bound."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_KINDS = frozenset({bool, type(None), str, float, int, dict, list})


def metadata_problem(value: Any) -> str | None:
    """Why PostgreSQL or MessagePack cannot hold this decoded JSON value, or None where both can.

    It looks at all values of one depth together, since a loop over single values takes ten times as long.
    """
    level, depth = [value], 0
    while level:
        if (problem := _level_problem(level)) is not None:
            return problem
        objects, arrays = _of_kind(dict, level), _of_kind(list, level)
        if depth >= MAX_DEPTH and (objects or arrays):
            return f"is nested deeper than {MAX_DEPTH} levels"
        level = [*chain(*objects), *chain(*(each.values() for each in objects)), *chain(*arrays)]
        depth += 1
    return None


def _level_problem(level: list[Any]) -> str | None:
    kinds = set(map(type, level))
    if unknown := kinds - _KINDS:
        return f"holds a {min(kind.__name__ for kind in unknown)}"
    if str in kinds and _UNSTORABLE.search("".join(_of_kind(str, level))):
        return "holds a NUL or half of a surrogate pair"
    if float in kinds and not all(map(math.isfinite, _of_kind(float, level))):
        return "holds a number that is not finite"
    if int in kinds:
        integers = _of_kind(int, level)
        if min(integers) < -MAX_NUMBER or max(integers) > MAX_NUMBER:
            return "holds a number past the range of a double"
    return None


def _of_kind(kind: type, level: list[Any]) -> list[Any]:
    return [value for value in level if type(value) is kind]


def size_problem(value: dict[str, Any]) -> str | None:
    """Why metadata is too large to be stored, or None where it is not."""
    size = len(msgspec.json.encode(value))
    return f"has {size} bytes; at most {MAX_BYTES} are kept" if size > MAX_BYTES else None
