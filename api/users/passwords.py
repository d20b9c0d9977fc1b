"""Hashes and checks passwords with argon2, in threads beside the event loop."""

import asyncio

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from api.http.problems import Invalid

MIN_LENGTH = 8
MAX_LENGTH = 256
CONCURRENT_HASHES = 2
"""Each hash takes 64 MiB and a core for tens of milliseconds. Further calls wait."""

_HASHER = PasswordHash((Argon2Hasher(),))


class WeakPassword(Invalid):
    """400: the password is too short, or too long to hash."""

    def __init__(self) -> None:
        message = f"{MIN_LENGTH} to {MAX_LENGTH} characters"
        super().__init__(f"password: {message}", [{"field": "password", "message": message}])


class Passwords:
    """One per event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(CONCURRENT_HASHES)
        self._dummy_hash: str | None = None

    async def hash(self, password: str) -> str:
        """The hash to store. Raises WeakPassword."""
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise WeakPassword
        async with self._slots:
            return await asyncio.to_thread(_HASHER.hash, password)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether the hash is of this password. Without a hash: False, after the same time, to reveal nothing."""
        async with self._slots:
            return await asyncio.to_thread(self._verify, password, password_hash)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        # Made with the first password of anybody: an address that nobody has takes as long as any other.
        self._dummy_hash = self._dummy_hash or _HASHER.hash("no user's password")
        return _HASHER.verify(password, password_hash or self._dummy_hash) and password_hash is not None
