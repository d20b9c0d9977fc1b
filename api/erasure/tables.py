"""Tombstones: who was erased, and when."""

from datetime import datetime

from sqlalchemy import Index

from api.database.base import Table, text_column, timestamptz, xid_column


class Tombstone(Table, table=True):
    """What the user did up to `erased_at` is gone here, and goes from files with the next export.

    What comes under the same id later is another user's. `xid` tells an export which tombstones are new to it.
    """

    __tablename__ = "tombstones"
    __table_args__ = (Index("tombstones_xid_idx", "tenant_id", "xid"),)

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    user_id: str = text_column(primary_key=True)
    erased_at: datetime = timestamptz()
    xid: int | None = xid_column()
