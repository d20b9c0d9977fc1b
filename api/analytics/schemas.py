"""Statistics in responses."""

from datetime import date
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue

from api.http.schemas import Schema

Period = Literal["7d", "30d", "90d"]
MAX_WINDOW_HOURS = 24 * 14


class Stats(Schema):
    """Statistics of the whole tenant at one moment."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "totalUsers": 1250,
                    "totalItems": 3400,
                    "totalRecommendations": 45000,
                    "totalInteractions": 120000,
                    "activeModels": 4,
                    "dailyActiveUsers": 340,
                    "avgAccuracy": 0.87,
                }
            ]
        }
    )

    total_users: int
    total_items: int = Field(description="Items that are not deleted, inactive ones included")
    total_recommendations: int = Field(description="Items that were shown or generated")
    total_interactions: int
    active_models: int = Field(description="Champions in the newest release")
    daily_active_users: int = Field(description="Users with an interaction today (UTC)")
    avg_accuracy: float | None = Field(
        description="Mean held-out AUC of the champions: the chance that an item which the user chose later outranks "
        "one drawn from the catalogue; null before the first champion"
    )


class Day(Schema):
    """One day in UTC."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"date": "2025-01-15", "totalRecommendations": 520, "activeUsers": 180, "accuracy": 0.88}]
        }
    )

    date: date
    total_recommendations: int = Field(description="Items that were shown or generated on that day")
    active_users: int = Field(description="Users with an interaction on that day")
    accuracy: float | None = Field(
        description="Mean AUC of the served models on that day's interactions; null where none could be measured"
    )


_EXAMPLE_GROUP: dict[str, JsonValue] = {
    "users": 1180,
    "shown": 5200,
    "itemsShown": 52000,
    "seen": 4100,
    "itemsSeen": 19800,
    "followed": 780,
    "rate": {"value": 0.15, "low": 0.1385, "high": 0.1623},
    "interactions": 940,
    "purchases": 120,
    "value": 118.5,
    "coverage": 0.41,
    "newItems": 0.07,
    "latencyMs": {"p50": 21.4, "p95": 48.9},
}


class EstimatedRate(Schema):
    """A share or a difference of shares, and its 95 % interval over users."""

    value: float
    low: float
    high: float


class AnswerTimes(Schema):
    """Milliseconds that answers took within the API, the model server's time included."""

    p50: float
    p95: float


class GroupFigures(Schema):
    """What came of the answers to a group of users."""

    users: int = Field(description="Users who were shown an answer")
    shown: int = Field(description="Answers that were shown")
    items_shown: int = Field(description="Items in these answers")
    seen: int = Field(description="Of these answers, those of which `POST /api/v1/impressions` said what was seen")
    items_seen: int = Field(description="Items in these answers that were seen")
    followed: int = Field(description="Answers that an interaction followed from")
    rate: EstimatedRate | None = Field(description="`followed` of `shown`; null where nothing was shown")
    interactions: int = Field(description="Interactions that followed from these answers")
    purchases: int = Field(description="Of these, purchases")
    value: float = Field(description="The `value` of these purchases, added up; one without a value counts 1")
    coverage: float = Field(description="The part of the catalogue that was shown to anybody, 0-1")
    new_items: float | None = Field(
        description="The part of the items shown that were in the catalogue for 30 days or less; null where none was"
    )
    latency_ms: AnswerTimes | None = Field(description="Null where no time was recorded")


class RecommendationFigures(GroupFigures):
    """What came of the recommendations to users who are not held out, and beside it of those who are."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_EXAMPLE_GROUP,
                    "windowHours": 24,
                    "holdout": {**_EXAMPLE_GROUP, "followed": 520, "rate": {"value": 0.1, "low": 0.09, "high": 0.111}},
                    "difference": {"value": 0.05, "low": 0.033, "high": 0.066},
                }
            ]
        }
    )

    window_hours: int = Field(description="Hours within which an interaction follows from an answer that it names not")
    holdout: GroupFigures = Field(description="The same of users who are held out and get popular items")
    difference: EstimatedRate | None = Field(
        description="How much larger `rate` is than that of the holdout; null where one of them is"
    )


WindowHours = Annotated[int, Field(ge=1, le=MAX_WINDOW_HOURS)]
