"""API keys. Only the SHA-256 of a key is stored."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class ApiKey(Table, table=True):
    __tablename__ = "api_keys"
    __table_args__ = (Index("api_keys_tenant_id_idx", "tenant_id"),)

    id: UUID = Field(primary_key=True)
    tenant_id: str = text_column(foreign_key="tenants.id")
    name: str = text_column()
    prefix: str = text_column()
    key_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    rate_limit: int | None = Field(
        default=None, description="requests a minute; None: the default of the settings; 0: no limit"
    )
    created_at: datetime = timestamptz(default_now=True)
    last_used_at: datetime | None = timestamptz(nullable=True)
    revoked_at: datetime | None = timestamptz(nullable=True)
