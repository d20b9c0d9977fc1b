"""Who a transaction is for, and from which network address it was asked for. The audit trail records both."""

from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession

_KEY = "origin"


@dataclass(frozen=True, slots=True)
class Origin:
    """The party behind a transaction: a portal user, or another one by its name."""

    user_id: str | None = None
    name: str = "service"  # of a party that is no user
    address: str | None = None  # of the client; None where no request came over the network


SERVICE = Origin()
"""The platform itself, such as its background tasks."""
COMMAND_LINE = Origin(name="command-line")


def set_origin(session: AsyncSession, origin: Origin) -> None:
    """Say who the session's transaction is for."""
    session.info[_KEY] = origin


def origin_of(session: AsyncSession) -> Origin:
    """Who the session's transaction is for; the service, where nobody said."""
    found: Origin = session.info.get(_KEY, SERVICE)
    return found
