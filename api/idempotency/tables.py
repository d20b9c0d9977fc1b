"""Answers that are kept for a day, so that a request that is sent again has its effect once."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Index, LargeBinary, SmallInteger
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.database.base import Table, moment, text_column


class KeptAnswer(Table, table=True):
    """No foreign key, for the reason that interactions have none: each insert would lock its tenant's row."""

    __tablename__ = "kept_answers"
    __table_args__ = (Index("kept_answers_created_at_idx", "created_at"),)

    tenant_id: str = text_column(primary_key=True)
    # SHA-256 over credential, path and key: neither a path nor a client's key, which may name a user, is kept.
    request: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    fingerprint: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # SHA-256 over query and body
    user_id: str | None = text_column(
        default=None, nullable=True
    )  # a digest of whose token it was; null for an API key
    status: int = Field(sa_column=Column(SmallInteger, nullable=False))
    headers: Any = Field(sa_column=Column(JSONB, nullable=False))  # [[name, value], ...]
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = moment(default_now=True)
