"""Items, and the version counter of each tenant's catalogue."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Computed, Index, text
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlmodel import Field

from api.database.base import ONE_ROW_PER_TENANT, Table, flag, text_column, timestamptz


class CatalogueState(Table, table=True):
    """The version counter of a tenant's catalogue; one row per tenant.

    A transaction that writes items first runs `UPDATE catalogues SET version = version + 1 ... RETURNING version`.
    The row lock makes the tenant's other writers wait until commit. So versions appear in the order of commits, and a
    reader at version v has seen every change up to v.
    """

    __tablename__ = "catalogues"
    __table_args__ = ({"info": {ONE_ROW_PER_TENANT: True}},)

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    version: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    # The number of items that are not deleted, inactive ones included. A trigger maintains it under the writers' lock.
    live_items: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))


class Item(Table, table=True):
    """One item. A deleted item keeps its row, with empty metadata, so that catalogue deltas can report the deletion."""

    __tablename__ = "items"
    __table_args__ = (
        Index("items_tenant_id_version_idx", "tenant_id", "version"),
        Index("items_metadata_idx", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
        Index("items_search_idx", "search", postgresql_using="gin"),
        Index(
            "items_newest_idx",
            "tenant_id",
            text("created_at DESC"),
            "id",
            postgresql_where=text("is_active AND deleted_at IS NULL"),
        ),
    )

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    id: str = text_column(primary_key=True)
    # The column is named `metadata`; SQLModel reserves that name for itself.
    attributes: dict[str, Any] = Field(sa_column=Column("metadata", JSONB, nullable=False))
    is_active: bool = flag()
    version: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = timestamptz(default_now=True)
    updated_at: datetime = timestamptz(default_now=True)
    deleted_at: datetime | None = timestamptz(nullable=True)
    search: Any = Field(
        default=None,
        sa_column=Column(
            TSVECTOR,
            Computed("item_search(metadata)", persisted=True),
        ),
    )
