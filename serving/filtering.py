"""Evaluates metadata filters over columns: a filter becomes one boolean mask over all items of a catalogue.

A field is read out of the metadata when the first filter names it, into flat arrays of its candidate values. A mask is
then a few array operations. Masks are cached by filter, since a tenant uses the same few filters all the time.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from serving.contracts.filters import And, Compare, Exists, Filter, In, Not, Or, Path

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int32]
Key = TypeVar("Key")
Value = TypeVar("Value")

MAX_CACHED_MASKS = 256
MAX_CACHED_FIELDS = 256
_MISSING = object()
_RELATIONS = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}


class MetadataColumns:
    """The metadata of some items as columns, read when a filter needs them. Not safe for concurrent threads."""

    def __init__(self, metadata: Sequence[Mapping[str, Any]]) -> None:
        self._metadata = metadata
        self._fields: OrderedDict[Path, _Field] = OrderedDict()
        self._masks: OrderedDict[bytes, Mask] = OrderedDict()

    def mask(self, condition: Filter, key: bytes | None = None) -> Mask:
        """True where an item matches, bool [n_items], read-only. key: `filter_key(condition)`, if the caller has it."""
        key = key or filter_key(condition)
        mask = self._masks.get(key)
        if mask is None:
            mask = self._evaluate(condition)
            mask.flags.writeable = False
            _remember(self._masks, key, mask, MAX_CACHED_MASKS)
        return mask

    def _evaluate(self, condition: Filter) -> Mask:
        match condition:
            case And(filters):
                mask = np.ones(len(self._metadata), dtype=bool)
                for part in filters:
                    mask &= self._evaluate(part)
                return mask
            case Or(filters):
                mask = np.zeros(len(self._metadata), dtype=bool)
                for part in filters:
                    mask |= self._evaluate(part)
                return mask
            case Not(part):
                return ~self._evaluate(part)
            case Exists(path):
                return self._field(path).present.copy()
            case In():
                return self._field(condition.path).contains(condition)
            case Compare():
                return self._field(condition.path).compare(condition)

    def _field(self, path: Path) -> "_Field":
        field = self._fields.get(path)
        if field is None:
            field = _Field([_value_at(metadata, path) for metadata in self._metadata])
            _remember(self._fields, path, field, MAX_CACHED_FIELDS)
        return field


class LayeredColumns:
    """Columns of a release with changed items laid over them. Masks of the base stay cached; changed rows are added."""

    def __init__(self, base: MetadataColumns, positions: Positions, metadata: Sequence[Mapping[str, Any]]) -> None:
        """positions: int32 [m], the items that changed since the base, ascending. metadata: of all items, [n_items]."""
        self.base = base
        self.positions = positions
        self._changes = MetadataColumns([metadata[position] for position in positions])
        self._n_items = len(metadata)

    def mask(self, condition: Filter, key: bytes | None = None) -> Mask:
        """As `MetadataColumns.mask`, bool [n_items]."""
        key = key or filter_key(condition)
        base = self.base.mask(condition, key)
        mask = np.zeros(self._n_items, dtype=bool)
        mask[: len(base)] = base
        mask[self.positions] = self._changes.mask(condition, key)
        return mask


def lay_over(
    columns: MetadataColumns | LayeredColumns, positions: Positions, metadata: Sequence[Mapping[str, Any]]
) -> LayeredColumns:
    """Columns in which these items have new metadata. Repeated calls keep a single layer over the base."""
    if isinstance(columns, LayeredColumns):
        return LayeredColumns(columns.base, np.union1d(columns.positions, positions), metadata)
    return LayeredColumns(columns, positions, metadata)


def filter_key(condition: Filter) -> bytes:
    """Bytes that are equal for equal filters only. A filter cannot be the key itself, since 1 == True in Python."""
    return msgspec.msgpack.encode(condition)


class _Field:
    """The candidate values of one field over all items, by type: flat arrays of values and of their rows."""

    def __init__(self, values: list[Any]) -> None:
        n = len(values)
        self.present = np.fromiter((value is not _MISSING for value in values), bool, n)
        self.nulls = ~self.present  # null or missing
        self.trues = np.zeros(n, dtype=bool)
        self.falses = np.zeros(n, dtype=bool)
        strings: list[tuple[int, str]] = []
        numbers: list[tuple[int, float]] = []
        for row, candidate in _candidates(values):
            if candidate is None:
                self.nulls[row] = True
            elif candidate is True:
                self.trues[row] = True
            elif candidate is False:
                self.falses[row] = True
            elif isinstance(candidate, str):
                strings.append((row, candidate))
            elif isinstance(candidate, int | float):
                numbers.append((row, _float(candidate)))
        self.number_rows = np.array([row for row, _ in numbers], np.int32)  # [n_numbers]
        self.numbers = np.array([number for _, number in numbers], np.float64)
        self.vocabulary = sorted({text for _, text in strings})  # in order of code points
        code_of = {text: code for code, text in enumerate(self.vocabulary)}
        self.string_rows = np.array([row for row, _ in strings], np.int32)  # [n_strings]
        self.string_codes = np.array([code_of[text] for _, text in strings], np.int32)  # indices of the vocabulary

    def contains(self, condition: In) -> Mask:
        mask = self.nulls.copy() if condition.null else np.zeros(len(self.nulls), dtype=bool)
        for boolean in condition.booleans:
            mask |= self.trues if boolean else self.falses
        if condition.strings:
            wanted = np.zeros(len(self.vocabulary), dtype=bool)
            for text in condition.strings:
                code = bisect_left(self.vocabulary, text)
                if code < len(wanted) and self.vocabulary[code] == text:
                    wanted[code] = True
            mask[self.string_rows[wanted[self.string_codes]]] = True
        if condition.numbers:
            mask[self.number_rows[np.isin(self.numbers, condition.numbers)]] = True
        return mask

    def compare(self, condition: Compare) -> Mask:
        mask = np.zeros(len(self.nulls), dtype=bool)
        if isinstance(condition.value, str):
            # Codes are in order: text < operand is code < left, text <= operand is code < right.
            left, right = bisect_left(self.vocabulary, condition.value), bisect_right(self.vocabulary, condition.value)
            codes = self.string_codes
            hits = {"lt": codes < left, "lte": codes < right, "gt": codes >= right, "gte": codes >= left}
            mask[self.string_rows[hits[condition.relation]]] = True
        else:
            mask[self.number_rows[_RELATIONS[condition.relation](self.numbers, condition.value)]] = True
        return mask


def _candidates(values: list[Any]) -> Iterator[tuple[int, Any]]:
    for row, value in enumerate(values):
        if isinstance(value, list | tuple):
            for element in value:
                yield row, element
        else:
            yield row, value


def _value_at(metadata: Mapping[str, Any], path: Path) -> Any:
    value: Any = metadata
    for key in path:
        if not isinstance(value, Mapping):
            return _MISSING
        value = value.get(key, _MISSING)
    return value


def _float(value: float) -> float:
    """As float64. An integer past its range becomes infinite, which compares the same with every valid operand."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _remember(cache: OrderedDict[Key, Value], key: Key, value: Value, limit: int) -> None:
    cache[key] = value
    while len(cache) > limit:
        cache.popitem(last=False)
