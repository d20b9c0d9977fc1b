"""Linear expressions over numbers and dates of item metadata: JSON, parsed once into a constant and weighted fields.

    {"$add": [1, {"$multiply": [0.1, {"$number": "rating"}]}, {"$multiply": [-0.01, {"$days": "releasedAt"}]}]}

A number stands for itself.
`{"$number": path, "missing": x}`: the number at this dotted path, x (or 0) where the item has none there. Anything but
    a number counts as missing: a string, a boolean, an array.
`{"$days": path, "missing": x}`: days from the date at this path to the moment of the request, negative for a date that
    is still to come. A date is a string of ISO 8601, with or without a time; without an offset it is in UTC.
`$add` sums a list, `$subtract` takes the second of two from the first, `$multiply` multiplies a list in which at most
    one element names a field. Nothing else is an operator, so every expression is linear.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from serving.contracts.filters import MAX_NUMBER, Exists, FilterError, Path, parse_filter

MAX_DEPTH = 8
"""Operators inside each other."""
MAX_PARTS = 50
"""Numbers, fields and operators of one expression."""
SECONDS_OF_DAY = 86_400.0

FieldKind = Literal["number", "days"]


class WeightedField(NamedTuple):
    """`weight` times the field's value. Of `days` the value counts down from the moment of the request."""

    kind: FieldKind
    path: Path
    weight: float
    missing: float


class LinearExpression(NamedTuple):
    """The sum of a constant and weighted fields."""

    constant: float
    fields: tuple[WeightedField, ...] = ()

    def value(self, readings: tuple[float | None, ...], moment: float) -> float:
        """The value for an item.

        readings: of `readings_of`, for this expression. moment: in seconds since the epoch.
        """
        total = self.constant
        for field, reading in zip(self.fields, readings, strict=True):
            if reading is None:
                total += field.weight * field.missing
            elif field.kind == "days":
                total += field.weight * (moment - reading) / SECONDS_OF_DAY
            else:
                total += field.weight * reading
        return total

    def readings_of(self, metadata: Mapping[str, Any]) -> tuple[float | None, ...]:
        """Per field what the metadata says, whatever the moment: a number, or the seconds since the epoch of a date."""
        return tuple(_READERS[field.kind](value_at(metadata, field.path)) for field in self.fields)


def value_at(metadata: Mapping[str, Any], path: Path) -> Any:
    """What lies at a path of objects; None where nothing does."""
    value: Any = metadata
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def field_path(text: Any, at: str) -> Path:
    """A dotted path, by the rules of filters. at: its place in the request. Raises FilterError."""
    if not isinstance(text, str):
        raise FilterError(at, "must be a dotted path")
    try:
        tree = parse_filter({text: {"$exists": True}})
    except FilterError as error:
        raise FilterError(at, f"is no dotted path: {error.message}") from error
    if not isinstance(tree, Exists):
        raise FilterError(at, "must be a dotted path")
    return tree.path


def parse_expression(document: Any, field: str = "expression") -> LinearExpression:
    """Parse an expression.

    document: the decoded JSON value. field: its place in the request, the prefix of `FilterError.field`.
    Raises FilterError where it is none, or exceeds a limit of this module.
    """
    return _Parser().expression(document, field, 0)


class _Parser:
    """Parses one document, and counts its parts against the limit."""

    def __init__(self) -> None:
        self.parts = 0

    def expression(self, document: Any, at: str, depth: int) -> LinearExpression:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise FilterError(at, f"is past the limit of {MAX_PARTS} parts in one expression")
        if depth > MAX_DEPTH:
            raise FilterError(at, f"is nested deeper than {MAX_DEPTH} levels")
        if not isinstance(document, Mapping):
            return LinearExpression(_number(document, at))
        names = [str(name) for name in document]
        for kind in ("number", "days"):
            if f"${kind}" in names:
                return self._field(kind, document, names, at)
        operators: dict[str, Callable[[list[LinearExpression], str], LinearExpression]] = {
            "$add": _sum,
            "$subtract": _difference,
            "$multiply": _product,
        }
        if len(names) != 1 or names[0] not in operators:
            raise FilterError(at, f"needs one operator; known are {', '.join(operators)}, $number and $days")
        name, operands = names[0], next(iter(document.values()))
        at = f"{at}.{name}"
        if not isinstance(operands, list | tuple) or not operands:
            raise FilterError(at, "must be a list of at least one expression")
        parts = [self.expression(part, f"{at}[{index}]", depth + 1) for index, part in enumerate(operands)]
        return _within_bounds(operators[name](parts, at), at)

    def _field(self, kind: Any, document: Mapping[str, Any], names: list[str], at: str) -> LinearExpression:
        if unknown := set(names) - {f"${kind}", "missing"}:
            raise FilterError(f"{at}.{min(unknown)}", f"does not stand beside ${kind}")
        missing = _number(document.get("missing", 0), f"{at}.missing")
        path = field_path(document[f"${kind}"], f"{at}.${kind}")
        return LinearExpression(0.0, (WeightedField(kind, path, 1.0, missing),))


def _sum(parts: list[LinearExpression], at: str) -> LinearExpression:
    return LinearExpression(
        sum(part.constant for part in parts), tuple(field for part in parts for field in part.fields)
    )


def _difference(parts: list[LinearExpression], at: str) -> LinearExpression:
    if len(parts) != 2:
        raise FilterError(at, "must be a list of two expressions")
    return _sum([parts[0], _times(parts[1], -1.0)], at)


def _product(parts: list[LinearExpression], at: str) -> LinearExpression:
    factor = math.prod(part.constant for part in parts if not part.fields)
    with_fields = [part for part in parts if part.fields]
    if len(with_fields) > 1:
        raise FilterError(at, "multiplies two fields, and an expression is linear")
    return _times(with_fields[0], factor) if with_fields else LinearExpression(factor)


def _times(part: LinearExpression, factor: float) -> LinearExpression:
    fields = tuple(field._replace(weight=field.weight * factor) for field in part.fields)
    return LinearExpression(part.constant * factor, fields)


def _within_bounds(made: LinearExpression, at: str) -> LinearExpression:
    if not all(abs(number) <= MAX_NUMBER for number in (made.constant, *(field.weight for field in made.fields))):
        raise FilterError(at, f"comes to a number that is not between -{MAX_NUMBER} and {MAX_NUMBER}")
    return made


def _number(document: Any, at: str) -> float:
    if isinstance(document, bool) or not isinstance(document, int | float):
        raise FilterError(at, "must be a number or an object with an operator")
    if not abs(document) <= MAX_NUMBER:  # NaN is not
        raise FilterError(at, f"must be a number between -{MAX_NUMBER} and {MAX_NUMBER}")
    return float(document)


def _read_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(max(-MAX_NUMBER, min(MAX_NUMBER, value)))  # metadata may hold an integer of any size


def _read_date(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


_READERS: dict[FieldKind, Callable[[Any], float | None]] = {"number": _read_number, "days": _read_date}
