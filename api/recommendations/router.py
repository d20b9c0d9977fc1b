"""`POST /api/v1/recommend` and its next pages, `/similar`, and what was seen of the answers.

A request takes this way, one file a step:

1. `api/http/requests.py`, `api/http/authentication.py`: the layers that every request passes begin its trace, find the
   principal of its key and count it against the rate limit.
2. `api/http/direct_routes.py`: a body that `api/recommendations/bodies.py` decodes goes to the direct route at once.
   Any other body goes through FastAPI, which validates it (`RecommendRequest`) and words what is wrong with it.
   `api/recommendations/router.py` (here): both ways require the key's scope, admit the request (`metered_read`), turn
   the filter into a tree (`parse_filter`), and go on alike.
3. `api/recommendations/service.py`: `RecommendationService` reads the user's newest events and seen items from the
   database (`UserView`), builds a `RecommendQuery` (`queries.py`), and asks the model server (`model_ranking.py`, which
   also checks that the items may still be shown). While no model can answer, it asks `fallback.py` for popular items.
4. `serving/client.py`: `ServingClient` gathers concurrent queries of a tenant into a `BatchRequest`, adds the
   catalogue delta where the server asks for one, and hands each caller its part of the `BatchResponse`
   (`serving/contracts/messages.py` defines the messages, `serving/transport.py` sends them).
5. `serving/application.py`, in the model server's process: decodes the batch and gives it to the tenant's predictor.
6. `serving/predictor.py`: `Predictor.answer` groups the queries by model family, turns histories into arrays
   (`serving/queries.py`), scores all items with the model, ranks them (`serving/ranking.py`), explains them
   (`serving/explanations.py`) and returns `RankedItem`s.

The same `RankedItem`s travel back and are encoded as the JSON of the response.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request, Response

from api.database.session import CurrentDatabase
from api.http.direct_routes import DirectAnswer, DirectRoute
from api.http.principal import WriteKey
from api.http.problems import Invalid
from api.metering.dependencies import PAYMENT_REQUIRED, MeteredRead, MeteredRequest, metered_read
from api.recommendations.answers import Recommendations
from api.recommendations.bodies import RecommendBody, SimilarBody, read_recommend, read_similar
from api.recommendations.schemas import (
    NextPageRequest,
    RecommendedItem,
    RecommendRequest,
    SeenRequest,
    SimilarItem,
    SimilarRequest,
)
from api.recommendations.seen import record_seen
from api.recommendations.service import RecommendationService
from serving.contracts.filters import Filter, FilterError, parse_filter
from serving.contracts.messages import ScoredItem


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    async with RecommendationService.open(state.database.pool, state.serving, state.configuration.history) as opened:
        state.recommendations, state.recipe_trials = opened, opened.trials
        yield


router = APIRouter(prefix="/api/v1", tags=["recommendations"], lifespan=_lifespan)
_encode = msgspec.json.Encoder().encode
ANSWER_HEADERS: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "X-Recommendation-Id": {
                "description": "Id of this answer; send it with interactions that follow from the answer",
                "schema": {"type": "string", "format": "uuid"},
            },
            "X-Model-Release": {"description": "Release of the models that answered", "schema": {"type": "string"}},
            "X-Recommendation-Degraded": {
                "description": "Present only where popularity answered in place of a model: why, and what it ignored",
                "schema": {"type": "string"},
            },
            "X-Scenario": {
                "description": "Present only where the request names a scenario: its id and the version that answered",
                "schema": {"type": "string"},
                "example": "front-page@3",
            },
        }
    }
}


async def _recommendations(request: Request) -> RecommendationService:
    service: RecommendationService = request.app.state.recommendations
    return service


CurrentRecommendations = Annotated[RecommendationService, Depends(_recommendations)]


@router.post(
    "/recommend",
    summary="Recommend items to a user",
    response_model=list[RecommendedItem],
    responses=ANSWER_HEADERS | PAYMENT_REQUIRED | {404: {"description": "There is no such live scenario"}},
)
async def recommend(body: RecommendRequest, usage: MeteredRead, recommendations: CurrentRecommendations) -> Response:
    """Personal recommendations, best first. A click recorded a moment ago counts.

    Fewer than `count` items is a legal answer. While no model can answer, popular items do, labelled so in
    `X-Recommendation-Degraded`.
    """
    return _response(await _recommend(body, _filter(body.filter), usage, recommendations))


@router.post(
    "/similar",
    summary="Find items like an item",
    response_model=list[SimilarItem],
    responses=ANSWER_HEADERS
    | PAYMENT_REQUIRED
    | {404: {"description": "There is no such item, or no such live scenario"}},
)
async def similar(body: SimilarRequest, usage: MeteredRead, recommendations: CurrentRecommendations) -> Response:
    """Items most similar to the given one, best first. An unknown item is a 404."""
    return _response(await _similar(body, _filter(body.filter), usage, recommendations))


@router.post(
    "/recommend/next",
    summary="Recommend further items to the same user",
    response_model=list[RecommendedItem],
    responses=ANSWER_HEADERS
    | PAYMENT_REQUIRED
    | {
        404: {"description": "There is no such answer of the last hour"},
        409: {"description": "Too many pages of one answer were asked for at the same moment"},
    },
)
async def next_page(body: NextPageRequest, usage: MeteredRead, recommendations: CurrentRecommendations) -> Response:
    """The next page of an answer to `recommend`: the same request, without what the answer and its pages showed.

    `X-Recommendation-Id` names the page. Any id of the sequence leads to its next page, for an hour after the first
    answer. Fewer than `count` items is a legal answer; a sequence shows 1,000 items at most.
    """
    found = await recommendations.next_page(usage.scope, body.recommendation_id, body.count)
    return _response(_answer(found, usage))


@router.post(
    "/impressions",
    status_code=204,
    summary="Tell what a user saw of an answer",
    responses={400: {"description": "Bad Request"}, 404: {"description": "There is no such answer"}},
)
async def record_impressions(
    body: SeenRequest, key: WriteKey, database: CurrentDatabase, recommendations: CurrentRecommendations
) -> None:
    """Which items of an answer were really seen, and at which place. What is known already is not changed.

    It costs no unit.
    """
    await record_seen(database.pool, recommendations.impressions, key.scope, body.recommendation_id, body.items)


async def _recommend_directly(request: Request, read: tuple[RecommendBody, Filter | None]) -> DirectAnswer:
    return await _recommend(*read, await metered_read(request), await _recommendations(request))


async def _similar_directly(request: Request, read: tuple[SimilarBody, Filter | None]) -> DirectAnswer:
    return await _similar(*read, await metered_read(request), await _recommendations(request))


direct_routes: list[DirectRoute[Any]] = [
    DirectRoute("/api/v1/recommend", read_recommend, _recommend_directly),
    DirectRoute("/api/v1/similar", read_similar, _similar_directly),
]


async def _recommend(
    body: RecommendRequest | RecommendBody,
    filter_: Filter | None,
    usage: MeteredRequest,
    recommendations: RecommendationService,
) -> DirectAnswer:
    return _answer(await recommendations.recommend(usage.scope, body, filter_), usage)


def _answer(found: Recommendations, usage: MeteredRequest) -> DirectAnswer:
    usage.count()
    return DirectAnswer(200, answer_headers(found), _encode(found.items))


async def _similar(
    body: SimilarRequest | SimilarBody,
    filter_: Filter | None,
    usage: MeteredRequest,
    recommendations: RecommendationService,
) -> DirectAnswer:
    found = await recommendations.similar(usage.scope, body, filter_)
    usage.count()
    items = [ScoredItem(item.item_id, item.score) for item in found.items]
    return DirectAnswer(200, answer_headers(found), _encode(items))


def _filter(document: dict[str, Any] | None) -> Filter | None:
    if document is None:
        return None
    try:
        return parse_filter(document)
    except FilterError as error:
        raise Invalid.field(error.field, error.message) from error


def answer_headers(found: Recommendations) -> dict[str, str]:
    """The headers that describe an answer beside its body."""
    headers = {"X-Recommendation-Id": str(found.recommendation_id)}
    if found.release is not None:
        headers["X-Model-Release"] = found.release
    if found.degraded is not None:
        headers["X-Recommendation-Degraded"] = found.degraded
    if found.scenario is not None:
        headers["X-Scenario"] = f"{found.scenario.id}@{found.scenario.version}"
    return headers


def _response(answer: DirectAnswer) -> Response:
    return Response(answer.body, answer.status, answer.headers, answer.media_type)
