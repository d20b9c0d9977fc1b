"""Requests and responses of `/graphql`, and the types of the GraphQL schema."""

from datetime import datetime
from typing import Annotated, Any

import strawberry
from pydantic import AfterValidator, Field

from api.http.schemas import PlainText, Schema, rfc3339
from feature_store.metadata import metadata_problem


def _storable(variables: dict[str, Any] | None) -> dict[str, Any] | None:
    if variables is not None and (problem := metadata_problem(variables)) is not None:
        raise ValueError(problem)
    return variables


class GraphQLRequest(Schema):
    """One operation, as every GraphQL client sends it."""

    query: Annotated[str, Field(min_length=1)] = Field(
        description="The document",
        examples=["query Similar($item: String!) { getSimilarItems(itemId: $item, count: 5) { itemId } }"],
    )
    variables: Annotated[dict[str, Any] | None, AfterValidator(_storable)] = Field(
        default=None, description="Values of the operation's variables", examples=[{"item": "50"}]
    )
    operation_name: PlainText | None = Field(
        default=None, description="Which of the document's operations to run, where it has several", examples=[None]
    )


class GraphQLErrorOut(Schema):
    """Why a field, or the whole operation, failed."""

    message: str
    path: list[str | int] | None = Field(default=None, description="The field; absent where nothing was run")
    locations: list[dict[str, int]] | None = Field(default=None, description="Places in the document")
    extensions: dict[str, Any] = Field(
        description="`code`, and the members of the problem that the same request would be answered with over REST",
        examples=[{"code": "NOT_FOUND", "status": 404, "title": "Not Found"}],
    )


class GraphQLAnswer(Schema):
    """`data` has a null where a field failed; `errors` says why."""

    data: dict[str, Any] | None = Field(examples=[{"getSimilarItems": [{"itemId": "172"}]}])
    errors: list[GraphQLErrorOut] | None = None
    extensions: dict[str, Any] | None = Field(
        default=None,
        description="`recommendations`: by field, what REST sends in the headers of recommendations",
        examples=[{"recommendations": {"getSimilarItems": {"release": "7f3a", "degraded": None}}}],
    )


DATE_TIME = strawberry.scalar(
    name="DateTime",
    description="A time in UTC in the form of RFC 3339: 2025-01-15T10:30:00Z",
    serialize=rfc3339,
    parse_value=datetime.fromisoformat,
)


@strawberry.type(name="Recommendation", description="An item that suits a user")
class RecommendationType:
    item_id: str
    score: float = strawberry.field(description="In [0, 1], not increasing down the list")
    algorithm: str = strawberry.field(
        description="The family that contributed most to the score; popularity in a fallback"
    )
    explanation: str


@strawberry.type(name="SimilarItem", description="An item like another")
class SimilarItemType:
    item_id: str
    score: float


@strawberry.type(name="Health", description="Whether the service is running")
class HealthType:
    status: str
    timestamp: datetime


@strawberry.type(name="RecordedInteraction", description="An acknowledgement: the interaction is stored")
class RecordedInteractionType:
    success: bool
    message: str
    timestamp: datetime = strawberry.field(description="When the interaction happened")
