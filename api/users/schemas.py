"""A user as the API shows one."""

from pydantic import Field

from api.edge.schemas import Instant, Schema


class UserOut(Schema):
    """A user, without its password."""

    id: str
    email: str | None
    name: str | None
    role: str = Field(examples=["admin"])
    is_active: bool
    created_at: Instant
