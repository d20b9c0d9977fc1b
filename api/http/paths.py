"""Decodes paths whose segments may contain an encoded slash.

Servers decode the whole path, so the id in `/api/items/a%2Fb` would become two segments. Here each segment is decoded
by itself, and a slash in it becomes `ENCODED_SLASH`, which `api.http.schemas.PathId` turns back into a slash.
"""

from urllib.parse import unquote, unquote_to_bytes

from starlette.types import Scope

from api.http.schemas import ENCODED_SLASH


def decode_path(scope: Scope) -> bool:
    """Set `scope["path"]` to the decoded path. False where the path contains a NUL or is not UTF-8."""
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
    """Whether the query string is UTF-8. (Any other would be decoded with replacement characters.)"""
    if b"%" not in query and query.isascii():
        return True
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        return False
    return True
