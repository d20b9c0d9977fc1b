"""Evaluates a metadata filter on one item, by the semantics in `serving.contracts.filters`."""

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any

from serving.contracts.filters import And, Compare, Exists, Filter, In, Not, Or, Path

_MISSING = object()
_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


def matches(tree: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether an item with this metadata, decoded JSON, matches."""
    match tree:
        case And(filters):
            return all(matches(part, metadata) for part in filters)
        case Or(filters):
            return any(matches(part, metadata) for part in filters)
        case Not(part):
            return not matches(part, metadata)
        case Exists(path):
            return _at(metadata, path) is not _MISSING
        case In():
            return _contains(tree, _at(metadata, tree.path))
        case Compare():
            return any(_holds(tree, candidate) for candidate in _candidates(_at(metadata, tree.path)))


def paths_of(tree: Filter) -> set[Path]:
    """The paths that a filter reads."""
    match tree:
        case And(filters) | Or(filters):
            return set().union(*(paths_of(part) for part in filters))
        case Not(part):
            return paths_of(part)
        case In() | Compare() | Exists():
            return {tree.path}


def _contains(condition: In, value: Any) -> bool:
    if value is _MISSING:
        return condition.null
    for candidate in _candidates(value):
        # A boolean is no number here, though True == 1 in Python.
        if candidate is None:
            found = condition.null
        elif isinstance(candidate, bool):
            found = candidate in condition.booleans
        elif isinstance(candidate, str):
            found = candidate in condition.strings
        else:
            found = isinstance(candidate, int | float) and candidate in condition.numbers
        if found:
            return True
    return False


def _holds(condition: Compare, candidate: Any) -> bool:
    if isinstance(candidate, bool):
        return False
    if not isinstance(candidate, str if isinstance(condition.value, str) else int | float):
        return False
    return bool(_RELATIONS[condition.relation](candidate, condition.value))


def _candidates(value: Any) -> list[Any]:
    if value is _MISSING:
        return []
    return value if isinstance(value, list) else [value]


def _at(metadata: Mapping[str, Any], path: Path) -> Any:
    value: Any = metadata
    for key in path:
        if not isinstance(value, Mapping):
            return _MISSING
        value = value.get(key, _MISSING)
    return value
