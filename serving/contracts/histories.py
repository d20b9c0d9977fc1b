"""Histories and seen items in messages: MessagePack that the API passes on without decoding or encoding it.

A history is an array of `HistoryEvent`, oldest first. Equal histories that the database built have equal bytes, so a
digest of the bytes names a history.
"""

from collections.abc import Iterable

import msgspec

from serving.contracts.messages import HistoryEvent

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[HistoryEvent]).decode
_decode_ids = msgspec.msgpack.Decoder(list[str]).decode

_FIX_ARRAY, _ARRAY_16, _ARRAY_32 = 0x90, 0xDC, 0xDD
"""First bytes of MessagePack's arrays. The lower half of the first form's byte is the length; the others have two or
four bytes of it, big-endian."""


def pack_history(events: Iterable[HistoryEvent]) -> msgspec.Raw:
    """The history of these events, which are sent in this order."""
    return msgspec.Raw(_encode(list(events)))


def read_history(history: msgspec.Raw) -> list[HistoryEvent]:
    """The events of a history. Raises msgspec.DecodeError where it is none."""
    return _decode(history)


def pack_ids(ids: Iterable[str]) -> msgspec.Raw:
    """The array of these item ids."""
    return msgspec.Raw(_encode(list(ids)))


def read_ids(ids: msgspec.Raw) -> list[str]:
    """The item ids of an array. Raises msgspec.DecodeError where it is none."""
    return _decode_ids(ids)


def with_events(history: bytes, later: list[HistoryEvent]) -> msgspec.Raw:
    """A history with more events at its end, made without decoding the earlier ones. Raises ValueError for no array."""
    first = history[0] if history else 0
    if first & 0xF0 == _FIX_ARRAY:
        start, count = 1, first & 0x0F
    elif first in (_ARRAY_16, _ARRAY_32):
        start = 3 if first == _ARRAY_16 else 5
        count = int.from_bytes(history[1:start], "big")
    else:
        raise ValueError("a history is a MessagePack array")
    head = _ARRAY_32.to_bytes(1, "big") + (count + len(later)).to_bytes(4, "big")
    return msgspec.Raw(b"".join([head, history[start:], *map(_encode, later)]))
