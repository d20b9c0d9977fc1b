"""Lists of items that the pipeline makes."""

from datetime import datetime

from sqlalchemy import Column, Double, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class ItemList(Table, table=True):
    """The items of one list, best first, with their scores.

    `source` is the list's name. `of_item` is the item that it belongs to, and empty for a list of the whole tenant.
    Items that have been hidden or deleted since stay in it; every read leaves them out.
    """

    __tablename__ = "item_lists"

    tenant_id: str = text_column(primary_key=True, foreign_key="tenants.id")
    source: str = text_column(primary_key=True)
    of_item: str = text_column(primary_key=True)
    item_ids: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    scores: list[float] = Field(sa_column=Column(ARRAY(Double), nullable=False))
    made_at: datetime = timestamptz(default_now=True)
