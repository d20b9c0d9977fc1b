"""The queries and mutations of the API reference, over the same services as REST."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import strawberry
from pydantic import BaseModel, ValidationError
from strawberry.types import Info

from api.database.engine import Pool
from api.graphql.errors import invalid
from api.graphql.schemas import HealthType, RecommendationType, RecordedInteractionType, SimilarItemType
from api.http.authentication import CountRequests
from api.http.principal import KeyPrincipal, Principal, require_key
from api.http.slices import turn
from api.interactions import service as interactions
from api.interactions.schemas import NewInteraction
from api.metering.meter import Meter
from api.metering.terms import Entitlement
from api.recommendations.answers import Recommendations
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from api.recommendations.service import RecommendationService

Request = TypeVar("Request", bound=BaseModel)


@dataclass
class Context:
    """Shared by the fields of one request."""

    principal: Principal | None
    count_requests: CountRequests
    meter: Meter
    pool: Pool
    recommendations: RecommendationService
    version: str
    operation_name: str | None
    has_written: bool = False  # whether a mutation was attempted
    outcomes: dict[str, Recommendations] = field(default_factory=dict)  # by field of the response
    terms: Entitlement | None = None  # of the tenant, once a field was metered
    units: int = 0  # of the fields that succeeded or are running

    @asynccontextmanager
    async def metered(self, key: KeyPrincipal) -> AsyncIterator[Entitlement]:
        """Meter a field: it costs one unit unless the block raises. Raises QuotaExceeded."""
        terms = self.terms = await self.meter.admit(key.tenant.id, self.units)
        self.units += 1
        try:
            yield terms
        except BaseException:
            self.units -= 1
            raise


Information = Info[Context, None]


@strawberry.type
class Query:
    @strawberry.field(description="Personal recommendations, best first")
    async def get_recommendations(
        self, info: Information, user_id: str, count: int, algorithm: str | None = None
    ) -> list[RecommendationType] | None:
        key = require_key(info.context.principal, "read")
        chosen = {} if algorithm is None else {"algorithm": algorithm}
        request = _read(RecommendRequest, userId=user_id, count=count, **chosen)
        async with info.context.metered(key):
            outcome = await info.context.recommendations.recommend(key.scope, request, None)
        _note(info, outcome)
        await turn()  # a long list takes a few milliseconds to complete
        return [
            RecommendationType(item_id=i.item_id, score=i.score, algorithm=i.algorithm, explanation=i.explanation)
            for i in outcome.items
        ]

    @strawberry.field(description="Items most like an item, without it")
    async def get_similar_items(self, info: Information, item_id: str, count: int) -> list[SimilarItemType] | None:
        key = require_key(info.context.principal, "read")
        request = _read(SimilarRequest, itemId=item_id, count=count)
        async with info.context.metered(key):
            outcome = await info.context.recommendations.similar(key.scope, request, None)
        _note(info, outcome)
        await turn()  # a long list takes a few milliseconds to complete
        return [SimilarItemType(item_id=item.item_id, score=item.score) for item in outcome.items]

    @strawberry.field(description="The version of this API")
    async def get_api_version(self, info: Information) -> str:
        return info.context.version

    @strawberry.field(description="Whether the process is running")
    async def get_health(self) -> HealthType:
        return HealthType(status="Healthy", timestamp=datetime.now(UTC))


@strawberry.type
class Mutation:
    @strawberry.mutation(description="Record what a user did with an item: view, click, like or purchase")
    async def record_interaction(
        self, info: Information, user_id: str, item_id: str, interaction_type: str, value: float | None = None
    ) -> RecordedInteractionType | None:
        key = require_key(info.context.principal, "write")
        new = _read(NewInteraction, userId=user_id, itemId=item_id, interactionType=interaction_type, value=value)
        async with info.context.metered(key) as terms:
            info.context.has_written = True
            row = await interactions.record(info.context.pool, key.scope, terms.plan, new)
        return RecordedInteractionType(
            success=True, message=f"Recorded as interaction {row.id}", timestamp=row.occurred_at
        )


def recommendation_extensions(context: Context) -> dict[str, Any]:
    """By field, what REST puts into the headers of recommendations."""

    def of(outcome: Recommendations) -> dict[str, UUID | str | None]:
        return {
            "recommendationId": str(outcome.recommendation_id),
            "release": outcome.release,
            "degraded": outcome.degraded,
        }

    return {name: of(outcome) for name, outcome in context.outcomes.items()}


def _read(schema: type[Request], **arguments: Any) -> Request:
    try:
        return schema.model_validate(arguments)
    except ValidationError as error:
        raise invalid(error) from error


def _note(info: Information, outcome: Recommendations) -> None:
    info.context.outcomes[str(info.path.key)] = outcome
