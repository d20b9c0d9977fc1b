"""Sessions of users who logged in here. (Users of external issuers have their sessions there.)"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, Column, DateTime, ForeignKeyConstraint, Index, Integer
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class UserSession(Table, table=True):
    """One login of one user. Access tokens carry its id and are refused once the row is deleted.

    Each refresh token carries a generation number, and only the newest generation is accepted. One row therefore
    stands for the whole family of refresh tokens of a login. `rotations` holds when the newest generations began, the
    newest last: from it and the generation, the tokens of a generation can be computed again.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "user_id"], ["users.tenant_id", "users.id"], ondelete="CASCADE"),
        Index("sessions_user_idx", "tenant_id", "user_id"),
        Index("sessions_expires_at_idx", "expires_at"),
    )

    id: UUID = Field(primary_key=True)
    tenant_id: str = text_column()
    user_id: str = text_column()
    generation: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    rotations: list[datetime] = Field(
        default_factory=list,
        sa_column=Column(ARRAY(DateTime(timezone=True)), nullable=False, server_default="{}"),
    )
    refreshable: bool = Field(sa_column=Column(Boolean, nullable=False))
    created_at: datetime = timestamptz(default_now=True)
    expires_at: datetime = timestamptz()
