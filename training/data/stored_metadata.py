"""The metadata of a catalogue's items, kept as the JSON text in which it is stored."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

import msgspec
import pyarrow as pa

_AT_ONCE = 4_096
"""Texts that iteration takes out of the column at a time."""


class StoredMetadata(Sequence[dict[str, Any]]):
    """The metadata of items by position. An item's metadata is decoded on each read and not kept.

    A decoded object takes several times the memory of its text, and most steps read each item once.
    """

    def __init__(self, texts: pa.ChunkedArray) -> None:
        """texts: strings, a JSON object for each item, none of them null."""
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredMetadata": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | StoredMetadata":
        if isinstance(index, slice):
            return StoredMetadata(self._texts[index])
        return _decoded(self._texts[index].as_py())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), _AT_ONCE):
            yield from map(_decoded, self._texts[start : start + _AT_ONCE].to_pylist())


def _decoded(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any])
