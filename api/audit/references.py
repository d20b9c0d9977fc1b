"""How the audit trail writes who acted and whom an entry is about.

A user is written by its id. Ids are any text, so a user could be called like a party of the platform and act under its
name; such ids are written with a prefix, and two parties are never written alike.
"""

from typing import Literal

from api.database.origin import Origin

ERASED = "erased"
ANONYMOUS = "anonymous"
"""Whoever did not prove who they are, such as the sender of a wrong password."""
PARTIES = ("service", "command-line", "stripe", "pipeline", "identity-provider", ANONYMOUS, ERASED)
"""Actors that are no users."""
PREFIX = "user:"

TargetKind = Literal["user", "key", "tenant", "model", "scenario"]


def user_reference(user_id: str) -> str:
    """The reference of a user. Different users have different ones, and none is that of a party."""
    return PREFIX + user_id if user_id in PARTIES or user_id.startswith(PREFIX) else user_id


def actor_of(origin: Origin) -> str:
    """The reference of the party behind a transaction. Raises ValueError for a name that is not in `PARTIES`."""
    if origin.user_id is not None:
        return user_reference(origin.user_id)
    if origin.name not in PARTIES:
        raise ValueError(f"{origin.name!r} is no actor of the audit trail")
    return origin.name
