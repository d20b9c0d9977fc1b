"""Statistics in responses."""

from datetime import date
from typing import Literal

from pydantic import ConfigDict, Field

from api.http.schemas import Schema

Period = Literal["7d", "30d", "90d"]


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
