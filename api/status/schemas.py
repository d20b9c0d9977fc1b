"""The status of a tenant's models in responses."""

from typing import Literal

from pydantic import ConfigDict, Field

from api.http.schemas import Instant, Schema


class FamilyStatus(Schema):
    """A family of models and the release that serves it."""

    family: str
    release: str | None = Field(description="Null where no model of the family has passed promotion yet")
    version: str | None = Field(description="The model's version in the registry")
    published_at: Instant | None
    age_seconds: int | None = Field(description="Time since the release was published")
    message: str | None = Field(description="Where there is no release: what it waits for")


class Status(Schema):
    """The tenant's releases: as loaded by the model server, or as published where the server does not answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "serving": "up",
                    "families": [
                        {
                            "family": "hybrid",
                            "release": "20250115-030512-120034",
                            "version": "3",
                            "publishedAt": "2025-01-15T03:05:12Z",
                            "ageSeconds": 26688,
                            "message": None,
                        }
                    ],
                    "interactionsUntilFirstModel": 0,
                }
            ]
        }
    )

    serving: Literal["up", "degraded", "down"] = Field(
        description="`degraded`: the model server has no release of the tenant; `down`: it does not answer"
    )
    families: list[FamilyStatus]
    interactions_until_first_model: int = Field(description="0 where there are enough, or a release")
