"""The operations of the reference, over the services that REST has."""

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
from api.graphql.schemas import Health, Recommendation, RecordedInteraction, SimilarItem
from api.http.auth import Charge
from api.http.principal import KeyPrincipal, Principal, require_key
from api.interactions import service as interactions
from api.interactions.schemas import NewInteraction
from api.metering.meter import Meter
from api.metering.terms import Entitlement
from api.recommendations.schemas import RecommendRequest, SimilarRequest
from api.recommendations.service import Recommendations, RecommendationService

Request = TypeVar("Request", bound=BaseModel)


@dataclass
class Context:
    """What a request's fields share."""

    principal: Principal | None
    charge: Charge
    meter: Meter
    pool: Pool
    recommendations: RecommendationService
    version: str
    operation_name: str | None
    has_made: bool = False  # something that was not there before
    outcomes: dict[str, Recommendations] = field(default_factory=dict)  # by field of the answer
    terms: Entitlement | None = None  # of the tenant, once a field was metered
    units: int = 0  # of the fields that succeeded or are at it

    @asynccontextmanager
    async def metered(self, key: KeyPrincipal) -> AsyncIterator[Entitlement]:
        """A field that costs a unit unless it fails. Raises QuotaExceeded."""
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
    ) -> list[Recommendation] | None:
        key = require_key(info.context.principal, "read")
        chosen = {} if algorithm is None else {"algorithm": algorithm}
        request = _read(RecommendRequest, userId=user_id, count=count, **chosen)
        async with info.context.metered(key):
            outcome = await info.context.recommendations.recommend(key.scope, request, None)
        _note(info, outcome)
        return [
            Recommendation(item_id=i.item_id, score=i.score, algorithm=i.algorithm, explanation=i.explanation)
            for i in outcome.items
        ]

    @strawberry.field(description="Items most like an item, without it")
    async def get_similar_items(self, info: Information, item_id: str, count: int) -> list[SimilarItem] | None:
        key = require_key(info.context.principal, "read")
        request = _read(SimilarRequest, itemId=item_id, count=count)
        async with info.context.metered(key):
            outcome = await info.context.recommendations.similar(key.scope, request, None)
        _note(info, outcome)
        return [SimilarItem(item_id=item.item_id, score=item.score) for item in outcome.items]

    @strawberry.field(description="The version of this API")
    async def get_api_version(self, info: Information) -> str:
        return info.context.version

    @strawberry.field(description="Whether the process lives")
    async def get_health(self) -> Health:
        return Health(status="Healthy", timestamp=datetime.now(UTC))


@strawberry.type
class Mutation:
    @strawberry.mutation(description="Record what a user did with an item: view, click, like or purchase")
    async def record_interaction(
        self, info: Information, user_id: str, item_id: str, interaction_type: str, value: float | None = None
    ) -> RecordedInteraction | None:
        key = require_key(info.context.principal, "write")
        new = _read(NewInteraction, userId=user_id, itemId=item_id, interactionType=interaction_type, value=value)
        async with info.context.metered(key) as terms:
            info.context.has_made = True
            happened = await interactions.record(info.context.pool, key.scope, terms.plan, new)
        return RecordedInteraction(
            success=True, message=f"Recorded as interaction {happened.id}", timestamp=happened.occurred_at
        )


def notes(context: Context) -> dict[str, Any]:
    """By field, what REST says in the headers of an answer."""

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
