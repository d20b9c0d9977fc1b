"""Reads metadata of any schema: dotted paths, and the kind of values at each path."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["text", "categorical", "numeric", "date"]
Flat = dict[str, list[Any]]
"""Dotted path -> its scalar values; a list in the metadata contributes each of its elements."""

MAX_DEPTH = 8
MAX_LIST_ELEMENTS = 64
"""Elements of one list that are read; the first ones describe an item with a thousand tags well enough."""
LIST_SEPARATOR = "|"
"""Some exports join several values as `Action|Comedy`; a field in which this is common is read as a list."""
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?$|\d{1,2}-[A-Za-z]{3}-\d{4}$")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class MetadataField(BaseModel):
    """One path of the metadata that the encoder reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    kind: Kind
    separated: bool = False  # strings are lists joined by LIST_SEPARATOR
    logarithmic: bool = False  # numeric values are read as log(1 + x)


def flatten(metadata: dict[str, Any]) -> Flat:
    """The scalars of one item's metadata by dotted path; missing ones (None, NaN, infinite, blank) are left out."""
    flat: Flat = {}
    for path, value in _scalars(metadata, "", 0):
        values = flat.setdefault(path, [])
        if len(values) < MAX_LIST_ELEMENTS:
            values.append(value)
    return flat


def _scalars(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > MAX_DEPTH or value is None:
        return
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _scalars(child, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _scalars(child, path, depth + 1)
    elif isinstance(value, bool):
        yield path, value
    elif isinstance(value, int | float):
        if number(value) is not None:
            yield path, value
    elif text := str(value).strip():
        yield path, text


def number(value: Any) -> float | None:
    """The value as a finite float, or None where it cannot be read as one."""
    if isinstance(value, bool):
        return float(value)
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def days(value: Any) -> float | None:
    """Days since the epoch of a date or date-time (ISO, or as 01-Jan-1995), or None where it cannot be read."""
    text = str(value)
    try:
        if text[-8:-5].casefold() in _MONTHS:
            day, month, year = text.split("-")
            time = datetime(int(year), _MONTHS.index(month.casefold()) + 1, int(day), tzinfo=UTC)
        else:
            time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() / 86_400


def labels(field: MetadataField, values: list[Any]) -> list[str]:
    """The distinct labels of a categorical field in one item, in a form where 1, 1.0 and "1" are one label."""
    found: dict[str, None] = {}
    for value in values:
        for part in str(value).split(LIST_SEPARATOR) if field.separated else [value]:
            if label := _label(part):
                found[label] = None
    return list(found)


def _label(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return str(value).strip().casefold()


def infer_fields(items: Sequence[Flat], max_fields: int) -> list[MetadataField]:
    """The fields to read, by path: those that more than one item has and whose values differ between items."""
    coverage = Counter(path for item in items for path in item)
    common = sorted(coverage, key=lambda path: (-coverage[path], path))[:max_fields]
    fields = [_infer(path, [item[path] for item in items if path in item]) for path in common if coverage[path] > 1]
    return sorted((field for field in fields if field is not None), key=lambda field: field.path)


def _infer(path: str, column: list[list[Any]]) -> MetadataField | None:
    """The kind of one path by the majority of its values; None where all items share one value or no two share any."""
    scalars = [value for values in column for value in values]
    strings = [value for value in scalars if isinstance(value, str)]
    numbers = [float(value) for value in scalars if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) > len(scalars) / 2:
        return MetadataField(path=path, kind="numeric", logarithmic=_skewed(numbers)) if len(set(numbers)) > 1 else None
    if len(strings) > len(scalars) / 2:
        if sum(bool(_URL.match(value)) for value in strings) > len(strings) / 2:
            return None
        if sum(bool(_DATE.match(value)) for value in strings) > len(strings) / 2:
            return MetadataField(path=path, kind="date") if len(set(strings)) > 1 else None
        separated = sum(LIST_SEPARATOR in value for value in strings) > len(strings) / 5
        if not separated and _is_prose(strings):
            return MetadataField(path=path, kind="text")
        field = MetadataField(path=path, kind="categorical", separated=separated)
    else:
        field = MetadataField(path=path, kind="categorical")
    counts = Counter(label for values in column for label in labels(field, values))
    shared = any(1 < count < len(column) for count in counts.values())
    return field if shared else None  # one value for all items, or an identifier of each


def _is_prose(strings: list[str]) -> bool:
    """Several words, seldom repeated: a title or a description rather than a label."""
    words = sum(len(value.split()) for value in strings) / len(strings)
    letters = sum(len(value) for value in strings) / len(strings)
    distinct = len(set(strings)) / len(strings)
    return distinct > 0.5 and (words > 1.5 or letters > 24)


def _skewed(numbers: list[float]) -> bool:
    """Non-negative with a long tail, as prices and counts are."""
    if min(numbers) < 0:
        return False
    ordered = sorted(numbers)
    middle, top = ordered[len(ordered) // 2], ordered[-1]
    return middle > 0 and top > 20 * middle
