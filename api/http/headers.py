"""Reads the headers of an ASGI request, and lists the headers that every response carries."""

from starlette.types import Scope

SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of this lower-case name, or None."""
    for found, value in scope["headers"]:
        if found == name:
            return str(value.decode("latin-1"))
    return None


def header_list(scope: Scope, name: bytes) -> str | None:
    """All headers of this lower-case name as one list, as RFC 9110 (5.3) joins them, or None."""
    found = [value.decode("latin-1") for each, value in scope["headers"] if each == name]
    return ", ".join(found) if found else None
