"""Writes everything that is held on a person as one JSON document, in parts."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from pydantic.alias_generators import to_camel
from sqlmodel.ext.asyncio.session import AsyncSession

from api.audit.service import note_user
from api.database.engine import Pool
from api.database.scope import TenantScope
from api.exports.repository import PersonRepository
from api.exports.sources import SOURCES
from api.http.problems import NotFound
from api.http.schemas import rfc3339

_ENCODER = msgspec.json.Encoder()


class PersonChangedError(Exception):
    """The person was erased while it was exported, so the document cannot be completed."""


async def begin_export(session: AsyncSession, pool: Pool, scope: TenantScope, user_id: str) -> AsyncIterator[bytes]:
    """The document in parts, and an entry of the audit trail that it was asked for. Raises NotFound."""
    person = PersonRepository(pool, scope, user_id)
    profile = await person.profile()
    if profile is None:
        raise NotFound("There is no such user")
    await note_user(session, scope, "user.exported", user_id)
    return _document(person, user_id, profile)


async def _document(person: PersonRepository, user_id: str, profile: dict[str, Any]) -> AsyncIterator[bytes]:
    head = {"userId": user_id, "exportedAt": rfc3339(datetime.now(UTC)), "profile": _member(profile)}
    yield _ENCODER.encode(head)[:-1]
    # Only of who logs in with an address the failed logins are its own: an end user may have anybody's address.
    email = profile["email"] if profile["has_password"] else None
    for name, source in SOURCES.items():
        yield f',"{to_camel(name)}":['.encode()
        separator = b""
        async for rows in person.pages(source, email):
            yield separator + _ENCODER.encode([_member(row) for row in rows])[1:-1]
            separator = b","
        yield b"]"
    # An erasure while the pages were read must not end in a document that looks whole.
    now = await person.profile()
    if now is None or now["created_at"] != profile["created_at"]:
        raise PersonChangedError
    yield b"}"


def _member(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the names and times of JSON here."""
    return {to_camel(name): rfc3339(value) if isinstance(value, datetime) else value for name, value in row.items()}
