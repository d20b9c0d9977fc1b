"""Keeps answers for those who ask the same again, as a page that is loaded once more does.

An answer depends on its query, on the release and on the place in the catalogue, and on nothing else. So all three name
it, and a later event of the user, a hidden item or a new release is another name.

Nothing of a user may remain when the user is erased, and the model server does not learn of erasures. Therefore an
answer is kept encrypted, and its key is derived from the query, which holds the user's history: who has not got the
history can neither find nor read the answer. After an erasure nobody has it.

A kept answer is the MessagePack of its items, which the response contains unchanged. So it is not decoded.
"""

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from serving.contracts.messages import CataloguePlace, Query, RankedItem

KEPT_SECONDS = 600.0
ENTRY_BYTES = 256
"""About what an entry takes beside the encrypted answer."""
_NAME_BYTES, _KEY_BYTES, _NONCE_BYTES = 16, 32, 12

_encode = msgspec.msgpack.Encoder().encode


class AnswerName(NamedTuple):
    """How an answer is found, and the key that decrypts it. Never kept."""

    name: bytes
    key: bytes


class _Entry(NamedTuple):
    nonce: bytes
    encrypted: bytes
    kept_at: float


class AnswerCache:
    """One per model server, for all tenants. The oldest answers go when the cache is full. Call it in one thread."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """max_bytes: 0 keeps nothing. clock: in seconds."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._secret = os.urandom(64)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # oldest first
        self._bytes = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return self._bytes

    def name(self, release: str, place: CataloguePlace, query: Query) -> AnswerName:
        """The name of an answer. release: names one load of one release of one tenant."""
        asked = _encode((release, place, msgspec.structs.replace(query, trace_id="")))
        digest = hashlib.blake2b(asked, key=self._secret, digest_size=_NAME_BYTES + _KEY_BYTES).digest()
        return AnswerName(digest[:_NAME_BYTES], digest[_NAME_BYTES:])

    def get(self, name: AnswerName) -> msgspec.Raw | None:
        """The answer of this name, for `items_of`; None where it is not here or not any more."""
        self._drop_old()
        entry = self._entries.get(name.name)
        return None if entry is None else msgspec.Raw(AESGCM(name.key).decrypt(entry.nonce, entry.encrypted, None))

    def put(self, name: AnswerName, answer: list[RankedItem]) -> None:
        """Keep an answer. One that is here already stays as old as it is."""
        if name.name in self._entries:
            return
        nonce = os.urandom(_NONCE_BYTES)
        entry = _Entry(nonce, AESGCM(name.key).encrypt(nonce, _encode(answer), None), self._clock())
        self._entries[name.name] = entry
        self._bytes += _size(entry)
        self._drop_old()

    def _drop_old(self) -> None:
        """Drop what is too old, and the oldest of what is too much."""
        oldest = self._clock() - KEPT_SECONDS
        while self._entries:
            entry = next(iter(self._entries.values()))
            if self._bytes <= self._max_bytes and entry.kept_at > oldest:
                return
            self._entries.popitem(last=False)
            self._bytes -= _size(entry)


def _size(entry: _Entry) -> int:
    return len(entry.encrypted) + ENTRY_BYTES
