"""The PostgreSQL cluster whose transaction ids the rows hold."""

from datetime import datetime

from sqlalchemy import Boolean, CheckConstraint, Column, text
from sqlmodel import Field

from api.database.base import Table, text_column, timestamptz


class AdoptedCluster(Table, table=True):
    """The one row of it names the cluster that the function `adopt_cluster` has last seen.

    A dump brings the row along, so that in another cluster it differs from what `cluster_identity` says.
    """

    __tablename__ = "adopted_cluster"
    __table_args__ = (CheckConstraint("single", name="single"),)

    single: bool = Field(default=True, sa_column=Column(Boolean, primary_key=True, server_default=text("true")))
    identity: str = text_column()
    adopted_at: datetime = timestamptz(default_now=True)
