"""Generation jobs in requests and responses."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from api.http.families import GeneratedFamily
from api.http.schemas import WHOLE, Schema
from feature_store import columns as c
from serving.contracts.messages import MAX_COUNT

UserSegment = Literal["all", "active", "new"]


class GenerateRequest(Schema):
    """The users to generate recommendations for, how many each, and the family of models."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"algorithm": "hybrid", "userSegment": "all", "count": 10}]}
    )

    algorithm: GeneratedFamily = Field(default="hybrid", description="The family of models that recommends")
    user_segment: UserSegment = Field(
        default="all",
        description=f"`all` active accounts; of these, `active` in the last {c.ACTIVE_DAYS} days; or `new`, with fewer "
        f"than {c.NEW_BELOW} interactions",
    )
    count: Annotated[int, Field(strict=True, ge=1, le=MAX_COUNT), WHOLE] = Field(
        default=10, description="Recommendations for each user"
    )


class GenerationAccepted(Schema):
    """A job that was created."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "jobId": "0198c0de-0000-7000-8000-000000000000",
                    "status": "processing",
                    "estimatedCompletionMs": 5000,
                }
            ]
        }
    )

    job_id: UUID
    status: Literal["processing"] = "processing"
    estimated_completion_ms: int = Field(ge=0, description="From now, by the speed of earlier jobs")


class GenerationStatus(Schema):
    """The progress of a job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "jobId": "0198c0de-0000-7000-8000-000000000000",
                    "status": "processing",
                    "progress": 0.5,
                    "usersTotal": 1250,
                    "usersDone": 625,
                    "recommendationsWritten": 6250,
                }
            ]
        }
    )

    job_id: UUID
    status: Literal["processing", "completed", "failed"]
    progress: float = Field(ge=0, le=1, description="The part of the users that is done")
    users_total: int = Field(description="Users of the segment; an estimate until the job has started")
    users_done: int
    recommendations_written: int
    error: str | None = Field(default=None, description="Only of a job that failed: why")
