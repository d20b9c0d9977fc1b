"""`POST /api/v1/recommend` and `/similar`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from api.http.problems import Invalid
from api.metering.dependencies import PAYMENT_REQUIRED, MeteredRead
from api.recommendations.schemas import (
    Recommended,
    RecommendedItem,
    RecommendRequest,
    Similar,
    SimilarItem,
    SimilarRequest,
)
from api.recommendations.service import Outcome, Recommender
from serving.contracts.filters import Filter, FilterError, parse_filter


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    async with Recommender.open(state.database.pool, state.serving, state.configuration.history) as recommender:
        state.recommender = recommender
        yield


router = APIRouter(prefix="/api/v1", tags=["recommendations"], lifespan=_lifespan)
_encode = msgspec.json.Encoder().encode
ANSWER_HEADERS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "X-Recommendation-Id": {
                "description": "Id of this answer, to name in interactions that follow from it",
                "schema": {"type": "string", "format": "uuid"},
            },
            "X-Model-Release": {"description": "Release of the models that answered", "schema": {"type": "string"}},
            "X-Recommendation-Degraded": {
                "description": "Present only where popularity answered in place of a model: why, and what it ignored",
                "schema": {"type": "string"},
            },
        }
    }
}


async def _recommender(request: Request) -> Recommender:
    found: Recommender = request.app.state.recommender
    return found


CurrentRecommender = Annotated[Recommender, Depends(_recommender)]


@router.post(
    "/recommend",
    summary="Recommend items to a user",
    response_model=list[RecommendedItem],
    responses=ANSWER_HEADERS | PAYMENT_REQUIRED,
)
async def recommend(body: RecommendRequest, usage: MeteredRead, recommender: CurrentRecommender) -> Response:
    """Personal recommendations, best first. A click recorded a moment ago counts.

    Fewer than `count` items is a legal answer. While no model can answer, popular items do, labelled so in
    `X-Recommendation-Degraded`.
    """
    outcome = await recommender.recommend(usage.scope, body, _filter(body.filter))
    usage.count()
    items = [Recommended(i.item_id, i.score, i.algorithm, i.explanation, i.evidence) for i in outcome.items]
    return _response(items, outcome)


@router.post(
    "/similar",
    summary="Find items like an item",
    response_model=list[SimilarItem],
    responses=ANSWER_HEADERS | PAYMENT_REQUIRED | {404: {"description": "There is no such item"}},
)
async def similar(body: SimilarRequest, usage: MeteredRead, recommender: CurrentRecommender) -> Response:
    """Items most alike the given one, best first, without it. An unknown item is 404."""
    outcome = await recommender.similar(usage.scope, body, _filter(body.filter))
    usage.count()
    return _response([Similar(item.item_id, item.score) for item in outcome.items], outcome)


def _filter(document: dict[str, Any] | None) -> Filter | None:
    if document is None:
        return None
    try:
        return parse_filter(document)
    except FilterError as error:
        raise Invalid.field(error.field, error.message) from error


def outcome_headers(outcome: Outcome) -> dict[str, str]:
    """What an answer says of itself beside its body."""
    headers = {"X-Recommendation-Id": str(outcome.recommendation_id)}
    if outcome.release is not None:
        headers["X-Model-Release"] = outcome.release
    if outcome.degraded is not None:
        headers["X-Recommendation-Degraded"] = outcome.degraded
    return headers


def _response(items: list[Any], outcome: Outcome) -> Response:
    return Response(_encode(items), media_type="application/json", headers=outcome_headers(outcome))
