"""What a version of the protocol is: a media type, and how its messages become bytes and come back.

`BatchRequest` and `BatchResponse` of `serving/contracts/messages.py` are the only form that programs work with. A codec
translates them to and from the bytes of its version.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from serving.contracts.messages import BatchRequest, BatchResponse, RankedItem

MAX_INTEGER = 2**64 - 1
MIN_INTEGER = -(2**63)
MAX_FLOAT = int(1.7976931348623157e308)
_ARRAY_16 = 0xDC
"""MessagePack's first byte of an array of 16 to 65,535 elements, whose length follows in two bytes. The low four bits
of the first byte of a shorter array are its length."""


class Codec(NamedTuple):
    """One version. The decoders raise msgspec.DecodeError, or RecursionError for a message that is nested too deep."""

    version: int
    media_type: str  # of requests and of answers
    encode_request: Callable[[BatchRequest], bytes]
    decode_request: Callable[[bytes], BatchRequest]
    encode_response: Callable[[BatchResponse], bytes]
    decode_response: Callable[[bytes], BatchResponse]


def items_of(answer: list[RankedItem] | msgspec.Raw) -> list[RankedItem]:
    """The items of an answer, which the model server keeps as MessagePack (`serving/answer_cache.py`)."""
    return _decode_items(answer) if isinstance(answer, msgspec.Raw) else answer


def n_items_of(answer: list[RankedItem] | msgspec.Raw) -> int:
    """The number of items of an answer. It is in the first bytes of MessagePack's array, so nothing is decoded."""
    if not isinstance(answer, msgspec.Raw):
        return len(answer)
    header = bytes(memoryview(answer)[:3])
    return header[0] & 0x0F if header[0] != _ARRAY_16 else int.from_bytes(header[1:], "big")


def encode_with_any_integer(message: msgspec.Struct) -> bytes:
    """MessagePack of a message whose item metadata may hold integers of any size; see `_within_64_bits`."""
    try:
        return _encode(message)
    except OverflowError:
        plain = msgspec.to_builtins(message, builtin_types=(bytes,), enc_hook=_plain)
        return _encode(_within_64_bits(plain))


def _plain(value: Any) -> Any:
    """The data of a part that the message carries as MessagePack."""
    if isinstance(value, msgspec.Raw):
        return _decode_any(value)
    raise NotImplementedError(f"a message holds no {type(value).__name__}")


def _within_64_bits(value: Any) -> Any:
    """A copy in which integers of more than 64 bits, which MessagePack cannot carry, are floats.

    They are clipped to the largest finite float.
    """
    if isinstance(value, dict):
        return {key: _within_64_bits(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_within_64_bits(part) for part in value]
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return float(max(-MAX_FLOAT, min(MAX_FLOAT, value)))
    return value


_encode = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder().decode
_decode_items = msgspec.msgpack.Decoder(list[RankedItem]).decode
