"""Tombstones: which users were erased, and when."""

from datetime import datetime

from sqlalchemy import Index

from api.database.base import Table, text_column, timestamptz, xid_column


class Tombstone(Table, table=True):
    """One erased user. The rows up to `erased_at` are deleted here; the next export deletes them from the lake's files.

    Later rows under the same id belong to a new user. `xid` tells an export which tombstones are new to it.
    """

    __tablename__ = "tombstones"
    __table_args__ = (Index("tombstones_xid_idx", "tenant_id", "xid"),)

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    user_id: str = text_column(primary_key=True)
    erased_at: datetime = timestamptz()
    xid: int | None = xid_column()
