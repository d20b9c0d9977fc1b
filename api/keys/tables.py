"""API keys, of which only the SHA-256 is stored, and secrets that all processes share."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, Column, Index, LargeBinary, Text, false
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
    is_tagged: bool = Field(
        default=False,
        sa_column=Column(Boolean, nullable=False, server_default=false()),
        description="whether the key has a tag (`api.keys.tags`); keys of versions before have none",
    )
    created_at: datetime = timestamptz(default_now=True)
    last_used_at: datetime | None = timestamptz(nullable=True)
    revoked_at: datetime | None = timestamptz(nullable=True)


class InstallationSecret(Table, table=True):
    """A random secret of this installation, which a migration made. The tags of API keys need it."""

    __tablename__ = "installation_secrets"

    name: str = text_column(primary_key=True)
    secret: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
