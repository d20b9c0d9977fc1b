"""Hashes and checks passwords with argon2, in threads beside the event loop."""

import asyncio
from typing import Literal

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from api.http.problems import Invalid
from api.users.common_passwords import is_common

MIN_LENGTH = 8
MAX_LENGTH = 256
CONCURRENT_HASHES = 2
"""Each hash takes 64 MiB and a core for tens of milliseconds. Further calls wait."""

_HASHER = PasswordHash((Argon2Hasher(),))


class WeakPassword(Invalid):
    """400: the password is too short, too long to hash, or guessed early. `reason` is GoTrue's word for it."""

    def __init__(self, message: str, reason: Literal["length", "pwned"]) -> None:
        super().__init__(f"password: {message}", [{"field": "password", "message": message}])
        self.reason = reason


class Passwords:
    """One per event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(CONCURRENT_HASHES)
        self._dummy_hash: str | None = None

    async def hash(self, password: str, *about: str | None) -> str:
        """The hash to store. Raises WeakPassword.

        about: texts that are known of the user, such as the address. A password that consists of them is weak.
        """
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise WeakPassword(f"{MIN_LENGTH} to {MAX_LENGTH} characters", "length")
        async with self._slots:
            if await asyncio.to_thread(is_common, password, [text for text in about if text]):
                raise WeakPassword(
                    "it is one of the first that are guessed: choose a longer or less common one", "pwned"
                )
            return await asyncio.to_thread(_HASHER.hash, password)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether the hash is of this password. Without a hash: False, after the same time, to reveal nothing."""
        async with self._slots:
            return await asyncio.to_thread(self._verify, password, password_hash)

    def _verify(self, password: str, password_hash: str | None) -> bool:
        # Made with the first password of anybody: an address that nobody has takes as long as any other.
        self._dummy_hash = self._dummy_hash or _HASHER.hash("no user's password")
        return _HASHER.verify(password, password_hash or self._dummy_hash) and password_hash is not None
