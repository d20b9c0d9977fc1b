"""The response of `/health/ready`."""

from typing import Literal

from api.http.schemas import Schema

State = Literal["up", "degraded", "down"]


class Readiness(Schema):
    """`degraded` migrations: the database is ahead of this code, as during a roll-out.
    `degraded` serving: the model server has no release yet."""

    database: State
    migrations: State
    serving: State

    @property
    def is_ready(self) -> bool:
        return self.database == "up" and self.migrations != "down"
