"""Translates a metadata filter into SQL over a JSONB column, by the semantics in `serving.contracts.filters`."""

from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from serving.contracts.filters import And, Compare, Exists, Filter, In, Not, Or, Path

RELATIONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Condition(msgspec.Struct, frozen=True):
    """A boolean SQL expression that is never NULL, with a value for each `%s` in it."""

    text: str
    values: list[Any] = []


def to_sql(tree: Filter, column: str = "metadata") -> Condition:
    """A condition that is true where the filter matches.

    column: SQL of a JSONB value that is never NULL. It is not escaped, so it must not come from a client.
    """
    match tree:
        case In():
            return _in(tree, column)
        case Compare():
            return _compare(tree, column)
        case Exists():
            field = _field(tree.path, column)
            return Condition(f"{field.text} IS NOT NULL", field.values)
        case And():
            return _joined(tree.filters, column, " AND ", "TRUE")
        case Or():
            return _joined(tree.filters, column, " OR ", "FALSE")
        case Not():
            inner = to_sql(tree.filter, column)
            return Condition(f"NOT ({inner.text})", inner.values)


def _field(path: Path, column: str) -> Condition:
    # `-> text` reads keys of objects only; `#>` would take a digit for an index into an array.
    return Condition(f"({column}{' -> %s::text' * len(path)})", list(path))


def _in(tree: In, column: str) -> Condition:
    field = _field(tree.path, column)
    operands = [*tree.strings, *tree.numbers, *tree.booleans, *([None] if tree.null else [])]
    # `@>` a scalar is true for an equal scalar and for an array with an equal element, one level deep.
    text = f"COALESCE({field.text} @> ANY(%s::jsonb[]), {'TRUE' if tree.null else 'FALSE'})"
    return Condition(text, [*field.values, [Jsonb(operand) for operand in operands]])


def _compare(tree: Compare, column: str) -> Condition:
    field = _field(tree.path, column)
    kind = "string" if isinstance(tree.value, str) else "number"
    # A strict path compares the elements as they are; a lax one would also look into arrays inside the array.
    candidates = (
        f"CASE jsonb_typeof({field.text}) WHEN 'array' THEN {field.text} ELSE jsonb_build_array({field.text}) END"
    )
    # A path compares strings by code point, whatever collation the database has.
    path = f'strict $[*] ? (@.type() == "{kind}" && @ {RELATIONS[tree.relation]} $operand)'
    text = f"jsonb_path_exists({candidates}, '{path}', %s::jsonb)"
    return Condition(text, [*field.values * 3, Jsonb({"operand": tree.value})])


def _joined(filters: tuple[Filter, ...], column: str, word: str, empty: str) -> Condition:
    parts = [to_sql(part, column) for part in filters]
    if not parts:
        return Condition(empty)
    return Condition(word.join(f"({part.text})" for part in parts), [value for part in parts for value in part.values])
