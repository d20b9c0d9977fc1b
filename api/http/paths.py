"""Paths whose segments may hold an encoded slash.

A server hands the path over decoded, and `/api/items/a%2Fb` would look like three segments. Each segment is decoded
by itself here, with `ENCODED_SLASH` for a slash inside of it; `api.http.schemas.PathId` turns that back.
"""

from urllib.parse import unquote, unquote_to_bytes

from starlette.types import Scope

from api.http.schemas import ENCODED_SLASH


def decode_path(scope: Scope) -> bool:
    """Set `scope["path"]`; False where the path holds a NUL or is not UTF-8, which no route's path can."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%" not in raw:
        return True
    try:
        segments = [unquote(segment, errors="strict") for segment in raw.decode("ascii").split("/")]
    except UnicodeDecodeError:
        return False
    if any(ENCODED_SLASH in segment for segment in segments):
        return False
    scope["path"] = "/".join(segment.replace("/", ENCODED_SLASH) for segment in segments)
    return True


def is_readable(query: bytes) -> bool:
    """Whether a query string is UTF-8; what is not would be read as something that nobody sent."""
    if b"%" not in query and query.isascii():
        return True
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
    return True
