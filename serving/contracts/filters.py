"""The filter language on item metadata: JSON in the style of MongoDB, parsed once into a small tree.

Two modules evaluate the tree: `serving/filtering.py` over columns in the model server, and
`api/items/filter_sql.py` over JSONB for the fallback. A property test holds both to the semantics below. A
filter is true or false of an item, never unknown.

Paths. `a.b` walks objects: key `b` of the object under key `a`. Anything else on the way (an array, a string, nothing)
    makes the field *missing*; a digit is a key, never an index; a key that contains a dot cannot be addressed.
Values. A field holds a string, number, boolean, null, array or object, or is missing. The *candidates* of a field are
    the elements of its array (one level, whatever they are), or the one value itself; none where it is missing.
Equality, `$eq`, `$in`: some candidate equals some operand. Types must agree: true is not 1, "1" is not 1; 1 is 1.0.
    Strings are equal by code point. The operand null also matches a missing field. Objects equal nothing.
`$gt, $gte, $lt, $lte`: the comparison holds for some candidate of the operand's type (number or string). Strings
    compare by code point (`COLLATE "C"`). Two bounds on an array may be met by two different elements.
`$exists`: true where the field is not missing (null is there), false where it is.
`$ne`, `$nin`, `$not`: the exact complement of `$eq`, `$in` and the negated filter, so a missing field matches.
`$not` is written before the operators of a field (`{"price": {"$not": {"$gt": 5}}}`) or before a whole filter.

Numeric operands are at most 2**53 - 1 in size. Up to there PostgreSQL's exact decimals and float64 agree on every
comparison with any number that metadata may hold (an integer of any size, or a float64 in its shortest decimal form).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

MAX_DEPTH = 8
"""Levels of `$and`, `$or` and `$not` inside each other."""
MAX_CONDITIONS = 100
MAX_OPERANDS = 1_000
"""Operands in all lists of one filter together."""
MAX_PATH = 8
"""Keys of one dotted path."""
MAX_TEXT = 1_024
"""Characters of one key path or string operand."""
MAX_NUMBER = 2**53 - 1

Path: TypeAlias = tuple[str, ...]
Comparison = Literal["gt", "gte", "lt", "lte"]


class FilterError(ValueError):
    """An invalid filter. `field` is its place in the request, such as `filter.price.$gt`."""

    def __init__(self, field: str, message: str) -> None:
        # The field contains the caller's own keys, so it is made printable and short.
        self.field = field.encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]
        super().__init__(f"{self.field}: {message}")
        self.message = message


class In(msgspec.Struct, frozen=True, tag="in"):
    """Some candidate of the field equals one of these operands; equality is a list of one."""

    path: Path
    strings: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    booleans: tuple[bool, ...] = ()
    null: bool = False  # matches a null and a missing field


class Compare(msgspec.Struct, frozen=True, tag="compare"):
    """The relation to the operand holds for some candidate of the operand's type."""

    path: Path
    relation: Comparison
    value: float | str


class Exists(msgspec.Struct, frozen=True, tag="exists"):
    """The field is not missing."""

    path: Path


class And(msgspec.Struct, frozen=True, tag="and"):
    """Every one matches; no filters match everything."""

    filters: tuple["Filter", ...]


class Or(msgspec.Struct, frozen=True, tag="or"):
    """At least one matches."""

    filters: tuple["Filter", ...]


class Not(msgspec.Struct, frozen=True, tag="not"):
    """The complement."""

    filter: "Filter"


Filter: TypeAlias = In | Compare | Exists | And | Or | Not


def parse_filter(document: Any, field: str = "filter") -> Filter:
    """Parse a filter.

    document: the decoded JSON value. field: its place in the request, the prefix of `FilterError.field`.
    Raises FilterError where it is not a valid filter, or exceeds a limit of this module.
    """
    return _Parser().filter(document, field, 0)


class _Parser:
    """Parses one document, and counts its conditions and operands against the limits."""

    def __init__(self) -> None:
        self.conditions = 0
        self.values = 0

    def filter(self, document: Any, at: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise FilterError(at, f"is nested deeper than {MAX_DEPTH} levels")
        if not isinstance(document, Mapping):
            raise FilterError(at, "must be an object")
        if not document:
            self._count(at, 0)
        return _all([self._entry(str(key), value, f"{at}.{key}", depth) for key, value in document.items()])

    def _entry(self, key: str, value: Any, at: str, depth: int) -> Filter:
        if key in ("$and", "$or"):
            if not isinstance(value, list | tuple) or not value:
                raise FilterError(at, "must be a list of at least one filter")
            filters = [self.filter(part, f"{at}[{index}]", depth + 1) for index, part in enumerate(value)]
            return _all(filters) if key == "$and" else Or(tuple(filters))
        if key == "$not":
            return Not(self.filter(value, at, depth + 1))
        if key.startswith("$"):
            raise FilterError(at, "is no operator here; known are $and, $or and $not")
        return self._field(_path(key, at), value, at, depth)

    def _field(self, path: Path, value: Any, at: str, depth: int) -> Filter:
        if not isinstance(value, Mapping):
            return self._in(path, [value], at)
        if depth > MAX_DEPTH:
            raise FilterError(at, f"is nested deeper than {MAX_DEPTH} levels")
        if not value:
            raise FilterError(at, "needs a value or an operator")
        return _all(
            [self._operator(path, str(name), operand, f"{at}.{name}", depth) for name, operand in value.items()]
        )

    def _operator(self, path: Path, name: str, operand: Any, at: str, depth: int) -> Filter:
        operators: dict[str, Callable[[], Filter]] = {
            "$eq": lambda: self._in(path, [operand], at),
            "$ne": lambda: Not(self._in(path, [operand], at)),
            "$in": lambda: self._in(path, _list(operand, at), at, indexed=True),
            "$nin": lambda: Not(self._in(path, _list(operand, at), at, indexed=True)),
            "$gt": lambda: self._compare(path, "gt", operand, at),
            "$gte": lambda: self._compare(path, "gte", operand, at),
            "$lt": lambda: self._compare(path, "lt", operand, at),
            "$lte": lambda: self._compare(path, "lte", operand, at),
            "$exists": lambda: self._exists(path, operand, at),
            "$not": lambda: Not(self._negated(path, operand, at, depth + 1)),
        }
        if name not in operators:
            hint = "" if name.startswith("$") else "; write a field of an object as a dotted path"
            raise FilterError(at, f"is no operator; known are {', '.join(operators)}{hint}")
        return operators[name]()

    def _negated(self, path: Path, operand: Any, at: str, depth: int) -> Filter:
        if not isinstance(operand, Mapping):
            raise FilterError(at, "must be an object of operators; for a value use $ne")
        return self._field(path, operand, at, depth)

    def _in(self, path: Path, operands: list[Any], at: str, indexed: bool = False) -> In:
        self._count(at, len(operands))
        strings: list[str] = []
        numbers: list[float] = []
        booleans: list[bool] = []
        null = False
        for index, operand in enumerate(operands):
            match _scalar(operand, f"{at}[{index}]" if indexed else at):
                case None:
                    null = True
                case bool() as boolean:
                    booleans.append(boolean)
                case float() as number:
                    numbers.append(number)
                case str() as string:
                    strings.append(string)
        return In(path, tuple(strings), tuple(numbers), tuple(booleans), null)

    def _compare(self, path: Path, relation: Comparison, operand: Any, at: str) -> Compare:
        self._count(at, 1)
        value = _scalar(operand, at)
        if value is None or isinstance(value, bool):
            raise FilterError(at, "must be a number or a string")
        return Compare(path, relation, value)

    def _exists(self, path: Path, operand: Any, at: str) -> Filter:
        self._count(at, 0)
        if not isinstance(operand, bool):
            raise FilterError(at, "must be true or false")
        return Exists(path) if operand else Not(Exists(path))

    def _count(self, at: str, values: int) -> None:
        self.conditions += 1
        self.values += values
        if self.conditions > MAX_CONDITIONS:
            raise FilterError(at, f"is past the limit of {MAX_CONDITIONS} conditions in one filter")
        if self.values > MAX_OPERANDS:
            raise FilterError(at, f"is past the limit of {MAX_OPERANDS} values in one filter")


def _all(filters: list[Filter]) -> Filter:
    return filters[0] if len(filters) == 1 else And(tuple(filters))


def _list(operand: Any, at: str) -> list[Any]:
    if not isinstance(operand, list | tuple):
        raise FilterError(at, "must be a list")
    return list(operand)


def _path(key: str, at: str) -> Path:
    keys = tuple(_text(key, at).split("."))
    if not all(keys):
        raise FilterError(at, "has an empty key in its path")
    if len(keys) > MAX_PATH:
        raise FilterError(at, f"is a path of more than {MAX_PATH} keys")
    return keys


def _scalar(operand: Any, at: str) -> bool | float | str | None:
    if operand is None or isinstance(operand, bool):
        return operand
    if isinstance(operand, str):
        return _text(operand, at)
    if isinstance(operand, int | float):
        if not abs(operand) <= MAX_NUMBER:  # NaN is not
            raise FilterError(at, f"must be a number between -{MAX_NUMBER} and {MAX_NUMBER}")
        return float(operand)
    raise FilterError(at, "must be a string, number, boolean or null; an array matches by its elements, see $in")


def _text(text: str, at: str) -> str:
    """The text, if UTF-8 and PostgreSQL's JSONB can hold it. Raises FilterError otherwise, or where it is too long."""
    if len(text) > MAX_TEXT:
        raise FilterError(at, f"is longer than {MAX_TEXT} characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise FilterError(at, "holds a character that no metadata can hold (NUL or half of a surrogate pair)")
    return text
