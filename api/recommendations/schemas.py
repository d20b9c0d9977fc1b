"""Requests and responses of `recommend` and its next pages, of `similar`, and of what was seen."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from api.http.families import requested_families
from api.http.schemas import WHOLE, OpaqueId, Schema
from feature_store.interaction_types import SeenPolicy
from serving.contracts.messages import MAX_COUNT

MAX_EXCLUDE = 1_000
MAX_SESSION = 200
MAX_POSITION = 10_000
"""The last place at which an item can have been seen: a page may show more than recommendations."""

Count = Annotated[
    int, Field(strict=True, ge=1, le=MAX_COUNT, description="Number of items wanted", examples=[10]), WHOLE
]
MetadataFilter = Annotated[
    dict[str, Any] | None,
    Field(
        description="Condition on item metadata, MongoDB style: equality, `$in`, `$nin`, `$gt`, `$gte`, `$lt`, `$lte`, "
        "`$exists`, `$and`, `$or`, `$not`, dotted paths",
        examples=[{"genres": "Comedy", "year": {"$gte": 1990}}],
    ),
]
Exclude = Annotated[
    list[OpaqueId],
    Field(
        default_factory=list,
        max_length=MAX_EXCLUDE,
        description="Ids of items that must not appear",
        examples=[["50"]],
    ),
]


def _known(name: str) -> str:
    if name not in requested_families():
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": " or ".join(requested_families())}
        )
    return name


AskedScenario = Annotated[
    OpaqueId | None,
    Field(
        description="A live scenario, whose recipe makes the list; fields of the request win over it",
        examples=["front-page"],
    ),
]
AnyAlgorithm = Annotated[
    str, AfterValidator(_known), Field(json_schema_extra=lambda schema: schema.update(enum=list(requested_families())))
]


class RecommendContext(Schema):
    """What the user does at the moment of the request."""

    session_items: list[OpaqueId] = Field(
        default=[],
        max_length=MAX_SESSION,
        description="Items of the current session, oldest first; they count like clicks of this moment",
        examples=[["172"]],
    )


class RecommendRequest(Schema):
    """The user, the number of items, and the family of models that ranks them."""

    user_id: OpaqueId = Field(description="Your id of the user, who may be unknown", examples=["user-abc"])
    count: Count
    algorithm: AnyAlgorithm = Field(default="hybrid", description="The family of models that answers")
    filter: MetadataFilter = None
    exclude: Exclude
    exclude_seen: SeenPolicy | None = Field(
        default=None, description="Which of the user's items not to show again; the tenant's setting where left out"
    )
    diversity: float = Field(
        default=0.0,
        strict=True,
        ge=0,
        le=1,
        description="0: the best items; the nearer to 1, the less similar the items of the list",
    )
    context: RecommendContext | None = None
    scenario: AskedScenario = None


class SimilarRequest(Schema):
    """The item to find similar items for."""

    item_id: OpaqueId = Field(examples=["50"])
    count: Count
    filter: MetadataFilter = None
    exclude: Exclude
    scenario: AskedScenario = None


class NextPageRequest(Schema):
    """The answer to go on from."""

    recommendation_id: UUID = Field(
        description="`X-Recommendation-Id` of an answer to `recommend`, or of a page that followed from it"
    )
    count: Count


class SeenItem(Schema):
    """An item that the user saw."""

    item_id: OpaqueId = Field(examples=["50"])
    position: Annotated[
        int,
        Field(strict=True, ge=1, le=MAX_POSITION, description="Its place in what was shown, from 1", examples=[1]),
        WHOLE,
    ]


class SeenRequest(Schema):
    """What a user saw of an answer."""

    recommendation_id: UUID = Field(description="`X-Recommendation-Id` of the answer")
    items: list[SeenItem] = Field(
        min_length=1, max_length=MAX_COUNT, description="Items of that answer; others are refused"
    )


# This model and `SimilarItem` document the answers. What is sent are `RankedItem` and `ScoredItem` of
# `serving.contracts.messages`, which a test holds to the same fields.
class RecommendedItem(Schema):
    """A recommended item."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "itemId": "172",
                    "score": 0.94,
                    "algorithm": "hybrid",
                    "explanation": "Because of what you liked before",
                    "evidence": ["50", "181"],
                }
            ]
        }
    )

    item_id: str
    score: float = Field(
        ge=0,
        le=1,
        description="The model's, comparable within one model. It does not rise down the list, except where a scenario "
        "orders it",
    )
    algorithm: str = Field(description="The family that contributed most to the score; `popularity` in a fallback")
    explanation: str
    evidence: list[str] = Field(description="At most three of the user's items that weigh most in this one")


class SimilarItem(Schema):
    """An item like the given one."""

    item_id: str
    score: float = Field(
        ge=0, le=1, description="The model's. It does not rise down the list, except where a scenario orders it"
    )
