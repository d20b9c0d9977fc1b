"""Headers of an ASGI request, and those that every response carries."""

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
