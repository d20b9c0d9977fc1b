"""Passwords: argon2 hashes, made and checked beside the event loop."""

import asyncio

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from api.http.problems import Invalid

MIN_LENGTH = 8
MAX_LENGTH = 256
AT_ONCE = 2
"""Hashing takes 64 MiB and a core for tens of milliseconds; more than these wait."""

_HASHER = PasswordHash((Argon2Hasher(),))


class WeakPassword(Invalid):
    """400: a password that is too short, or too long to hash."""

    def __init__(self) -> None:
        message = f"{MIN_LENGTH} to {MAX_LENGTH} characters"
        super().__init__(f"password: {message}", [{"field": "password", "message": message}])


class Passwords:
    """One per event loop."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """The hash to keep. Raises WeakPassword."""
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise WeakPassword
        async with self._turns:
            return await asyncio.to_thread(_HASHER.hash, password)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether it is the password of this hash. Without a hash it takes as long, and is false."""
        async with self._turns:
            return await asyncio.to_thread(self._verify, password, password_hash)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        if password_hash is None:
            self._nobodys = self._nobodys or _HASHER.hash("nobody's")
        return _HASHER.verify(password, password_hash or self._nobodys or "") and password_hash is not None
