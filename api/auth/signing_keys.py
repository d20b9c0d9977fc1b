"""The keys that sign tokens: several are valid at a time, and the newest signs.

They come from two places: the settings, whose secrets an operator changes by a restart, and a file in the state folder,
to which `python -m api rotate-signing-key` adds one while the API runs. Once the file has a key, the settings' secrets
only verify. A key verifies until tokens that were signed before its successor have expired.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from api.background import PeriodicTask
from configs.auth import AuthSettings
from configs.files import locked, write_private
from configs.settings import PathSettings

MIN_SECRET_BYTES = 32
ACTIVE_AFTER_SECONDS = 10.0
"""A new key signs after this time, when every process has read it."""
POLL_SECONDS = 2.0
REREAD_SECONDS = 1.0
"""Tokens with unknown keys, which anyone can send, cause at most one look at the file in this time."""
MAX_KEYS = 50
KEPT_SECONDS = 366 * 86_400.0
"""A key stays in the file for at least this time after its successor. Whether it still verifies, the API decides by its
own settings, which the shell of an operator need not have."""


class MissingSecretError(RuntimeError):
    """There is no secret to sign tokens with."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A secret for HMAC. It signs tokens that are issued from `active_from` on, in seconds since the epoch."""

    kid: str
    secret: str = field(repr=False)
    active_from: float

    def derived(self, purpose: bytes) -> bytes:
        """A key for another purpose than access tokens."""
        return hmac.digest(self.secret.encode(), purpose, hashlib.sha256)


class _StoredKey(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kid: str = Field(min_length=1)
    secret: str = Field(min_length=MIN_SECRET_BYTES)
    active_from: float


class _KeyFile(BaseModel):
    """The file's content. `settings_superseded_at`: since when the settings' secrets do not sign any more."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    keys: tuple[_StoredKey, ...] = Field(min_length=1)
    settings_superseded_at: float


class SigningKeys:
    """The keys of this process. Raises MissingSecretError where there is none, ValueError for an unreadable file."""

    def __init__(self, settings: AuthSettings, paths: PathSettings) -> None:
        self._path = paths.signing_keys_file
        self._life = max(settings.token_seconds, settings.session_seconds)
        given = [settings.jwt_secret] if settings.jwt_secret else []
        others = [_of_settings("JWT_OTHER_SECRETS", each) for each in settings.jwt_other_secrets]
        self._settings = (*(_of_settings("JWT_SECRET", each) for each in given), *others)
        self._has_signer = bool(settings.jwt_secret)
        self._file: _KeyFile | None = None
        self._version: tuple[int, ...] | None = None
        self._reread = -REREAD_SECONDS
        self._read()
        if self._file is None and not self._has_signer:
            raise _missing("JWT_SECRET")

    def signer(self, issued_at: float) -> SigningKey:
        """The key of tokens that are issued at this time, the same in every process that has read it."""
        keys = [SigningKey(key.kid, key.secret, key.active_from) for key in self._file.keys] if self._file else []
        candidates = [*self._settings[: int(self._has_signer)], *keys]
        active = [key for key in candidates if key.active_from <= issued_at]
        return active[-1] if active else candidates[0]

    def with_id(self, kid: str) -> SigningKey | None:
        """The valid key with this id."""
        return next((key for key in self.valid() if key.kid == kid), None)

    def without_id(self) -> tuple[SigningKey, ...]:
        """The valid keys of tokens that name none: versions before key ids signed with the settings' secret."""
        return tuple(key for key in self.valid() if key in self._settings)

    def valid(self) -> tuple[SigningKey, ...]:
        """The keys that verify now, the newest first."""
        now, stored = time.time(), self._file
        if stored is None:
            return self._settings
        keys = []
        successor = float("inf")
        for key in reversed(stored.keys):
            if now <= successor + self._life:
                keys.append(SigningKey(key.kid, key.secret, key.active_from))
            successor = key.active_from
        return (*keys, *(self._settings if now <= stored.settings_superseded_at + self._life else ()))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Inside the block, the file is read within `POLL_SECONDS` of every change."""
        async with PeriodicTask("signing keys", self.refresh, POLL_SECONDS, expected=(ValueError,)):
            yield

    async def refresh(self) -> None:
        """Read the file again if it has changed. Raises ValueError where it cannot be read; the keys then stay."""
        if time.monotonic() - self._reread >= REREAD_SECONDS:
            self._reread = time.monotonic()
            await asyncio.to_thread(self._read)

    def _read(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            if self._has_signer:
                self._file = self._version = None
            return
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        if version != self._version:
            self._file, self._version = _load(self._path), version


def rotate_signing_key(
    settings: AuthSettings, paths: PathSettings, seconds: float = ACTIVE_AFTER_SECONDS, *, revoke_others: bool = False
) -> SigningKey:
    """Add a key to the file, and drop those whose tokens have all expired long ago.

    seconds: after which the key signs.
    revoke_others: no other key is accepted any more, which logs everybody out.
    Raises ValueError where the file cannot be read, and for more than `MAX_KEYS` valid keys.
    """
    life = max(settings.token_seconds, settings.session_seconds)
    path = paths.signing_keys_file
    with locked(path.parent):
        now = time.time()
        stored = _load(path) if path.exists() else None
        known = [] if stored is None or revoke_others else list(stored.keys)
        known = _superseded_later(known, now - max(life, KEPT_SECONDS))
        if len(known) >= MAX_KEYS:
            known = _superseded_later(known, now - life)
        if len(known) >= MAX_KEYS:
            raise ValueError(f"{MAX_KEYS} keys are valid already: the next may be made when the oldest is dropped")
        active_from = now if revoke_others else max([now + seconds, *(key.active_from for key in known)])
        new = _StoredKey(kid=secrets.token_hex(8), secret=secrets.token_urlsafe(48), active_from=active_from)
        superseded = stored.settings_superseded_at if stored else new.active_from
        content = _KeyFile(keys=(*known, new), settings_superseded_at=0.0 if revoke_others else superseded)
        write_private(path, content.model_dump_json(indent=1))
    return SigningKey(new.kid, new.secret, new.active_from)


def _superseded_later(keys: list[_StoredKey], moment: float) -> list[_StoredKey]:
    """The keys whose successor became active after this moment, and the newest."""
    kept = [key for key, successor in pairwise(keys) if successor.active_from >= moment]
    return [*kept, *keys[-1:]]


def _load(path: Path) -> _KeyFile:
    try:
        return _KeyFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ValueError(f"the signing keys in {path} cannot be read: {error}") from error


def _of_settings(name: str, given: SecretStr) -> SigningKey:
    secret = given.get_secret_value()
    if len(secret.encode()) < MIN_SECRET_BYTES:
        raise _missing(name)
    return SigningKey(hmac.digest(secret.encode(), b"key id", hashlib.sha256)[:8].hex(), secret, 0.0)


def _missing(name: str) -> MissingSecretError:
    return MissingSecretError(
        f"set {name} to a secret of at least {MIN_SECRET_BYTES} bytes, such as the output of "
        "`python -c 'import secrets; print(secrets.token_urlsafe(48))'`"
    )
