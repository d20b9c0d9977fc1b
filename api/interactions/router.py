"""`POST /api/v1/interactions` and its batch; `GET /api/users/{id}/interactions`, which lists what a user did."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.database.engine import Database
from api.database.session import CurrentDatabase, Session
from api.http.batches import BatchOut, BatchRoute, count_rows
from api.http.direct_routes import DirectAnswer, DirectRoute
from api.http.principal import CurrentAdmin
from api.http.schemas import Page, Paging, PathId
from api.interactions import service
from api.interactions.bodies import InteractionBody, read_interaction
from api.interactions.log import InteractionLog
from api.interactions.schemas import InteractionBatch, InteractionOut, NewInteraction, RecordedInteraction
from api.metering.dependencies import PAYMENT_REQUIRED, MeteredRequest, MeteredWrite, metered_write
from api.users import service as users

router = APIRouter(route_class=BatchRoute)


@router.post(
    "/api/v1/interactions",
    tags=["interactions"],
    status_code=201,
    summary="Record an interaction",
    responses=PAYMENT_REQUIRED | {404: {"description": "Not Found"}},
)
async def record(body: NewInteraction, usage: MeteredWrite, database: CurrentDatabase) -> InteractionOut:
    """What a user did with an item. It is stored before the response, and counts in the user's next recommendation."""
    return await _record(body, usage, database)


async def _record_directly(request: Request, body: InteractionBody) -> DirectAnswer:
    answer = await _record(body, await metered_write(request), request.app.state.database)
    return DirectAnswer(201, {}, answer.model_dump_json(by_alias=True).encode())


async def _record(body: NewInteraction | InteractionBody, usage: MeteredRequest, database: Database) -> InteractionOut:
    row = await service.record(database.pool, usage.scope, usage.plan, body)
    usage.count()
    return InteractionOut(success=True, interaction_id=row.id, timestamp=row.occurred_at)


direct_routes: list[DirectRoute[Any]] = [DirectRoute("/api/v1/interactions", read_interaction, _record_directly)]


@router.post(
    "/api/v1/interactions/batch",
    tags=["interactions"],
    summary="Record up to 1,000 interactions",
    response_model=BatchOut,
    responses=PAYMENT_REQUIRED,
)
async def record_all(
    body: InteractionBatch, request: Request, usage: MeteredWrite, database: CurrentDatabase
) -> Response:
    """One result per row: 201, 400, 402 or 404. Valid rows are stored even if other rows are refused.

    In the rate limit each started 50 rows count as one request.
    """
    await count_rows(request, len(body.interactions))
    answer = await service.record_all(database.pool, usage.scope, usage.plan, body.interactions)
    usage.count(answer.succeeded)
    return answer.response()


@router.get(
    "/api/users/{user_id}/interactions",
    tags=["users"],
    summary="List what a user did",
    responses={403: {"description": "Forbidden"}, 404: {"description": "Not Found"}},
)
async def list_interactions(
    user_id: PathId, admin: CurrentAdmin, session: Session, paging: Paging
) -> Page[RecordedInteraction]:
    """Newest first."""
    await users.get_user(session, admin.scope, user_id)
    found, total = await InteractionLog(session, admin.scope).page(user_id, paging.offset, paging.page_size)
    data = [RecordedInteraction.model_validate(interaction) for interaction in found]
    return Page[RecordedInteraction](data=data, total=total, page=paging.page, page_size=paging.page_size)
