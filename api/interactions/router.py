"""`POST /api/v1/interactions` and its batch."""

from fastapi import APIRouter

from api.database.session import CurrentDatabase
from api.http.batches import BatchOut
from api.interactions import service
from api.interactions.schemas import InteractionBatch, InteractionOut, NewInteraction
from api.metering.dependencies import PAYMENT_REQUIRED, MeteredWrite

router = APIRouter(prefix="/api/v1/interactions", tags=["interactions"])


@router.post(
    "",
    status_code=201,
    summary="Record an interaction",
    responses=PAYMENT_REQUIRED | {404: {"description": "Not Found"}},
)
async def record(body: NewInteraction, usage: MeteredWrite, database: CurrentDatabase) -> InteractionOut:
    """What a user did with an item. It is stored when this answers, and counts in the user's next recommendation."""
    happened = await service.record(database.pool, usage.scope, usage.plan, body)
    usage.count()
    return InteractionOut(success=True, interaction_id=happened.id, timestamp=happened.occurred_at)


@router.post(
    "/batch",
    summary="Record up to 1,000 interactions",
    response_model_exclude_none=True,
    responses=PAYMENT_REQUIRED,
)
async def record_all(body: InteractionBatch, usage: MeteredWrite, database: CurrentDatabase) -> BatchOut:
    """One result per row: 201, 400, 402 or 404. The good rows are stored whatever the others are."""
    answer = await service.record_all(database.pool, usage.scope, usage.plan, body.interactions)
    usage.count(answer.succeeded)
    return answer
