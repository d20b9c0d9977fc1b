"""Idempotency records: the responses of POST requests that carried an `Idempotency-Key`, kept for a day; and claims."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Index, LargeBinary, SmallInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class IdempotencyRecord(Table, table=True):
    """The response to one request. There is no foreign key, because each insert would lock its tenant's row."""

    __tablename__ = "idempotency_records"
    __table_args__ = (Index("idempotency_records_created_at_idx", "created_at"),)

    tenant_id: str = text_column(primary_key=True)
    # SHA-256 of credential, path and key. Paths and keys may contain the id of a user, so neither is stored itself.
    request: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    # SHA-256 of query string and body.
    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    # A digest of the user whose token was sent; null where an API key was.
    user_id: str | None = text_column(default=None, nullable=True)
    status: int = Field(sa_column=Column(SmallInteger, nullable=False))
    headers: Any = Field(sa_column=Column(JSONB, nullable=False))  # [[name, value], ...]
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = timestamptz(default_now=True)


class IdempotencyClaim(Table, table=True):
    """A request to a route that calls another service is in flight. Its process holds no connection meanwhile."""

    __tablename__ = "idempotency_claims"

    tenant_id: str = text_column(primary_key=True)
    request: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    # Which of several equal requests has the claim.
    token: UUID = Field()
    # After this time the claim is void: its process must have died.
    claimed_until: datetime = timestamptz()
