"""`GET /api/v1/lists/{source}`: lists of items for a page without a user.

The lists themselves are `api/lists/source.py`; `similar` is answered by the models, as `POST /api/v1/similar` is.
"""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from api.front_page.schemas import ItemOfList
from api.http.problems import Invalid
from api.http.schemas import OpaqueId, PathId
from api.metering.dependencies import PAYMENT_REQUIRED, MeteredRead
from api.recommendations.bodies import SimilarBody
from api.recommendations.router import answer_headers
from api.recommendations.service import RecommendationService
from serving.contracts.filters import Filter, FilterError, parse_filter
from serving.contracts.messages import MAX_COUNT, ScoredItem

SIMILAR = "similar"
MAX_FILTER = 8_000
"""Characters of a filter in a query string."""

router = APIRouter(prefix="/api/v1/lists", tags=["lists"])
_encode = msgspec.json.Encoder().encode
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such list, or no such item"}}


@router.get(
    "/{source}",
    summary="Get a list of items",
    response_model=list[ItemOfList],
    responses=PAYMENT_REQUIRED | _NOT_FOUND,
)
async def get_list(
    source: PathId,
    usage: MeteredRead,
    request: Request,
    count: Annotated[int, Query(ge=1, le=MAX_COUNT, description="Number of items wanted")] = 10,
    filter_: Annotated[
        str | None,
        Query(
            alias="filter",
            max_length=MAX_FILTER,
            description="A filter on metadata as in `recommend`, as JSON",
            examples=['{"genres": "Comedy"}'],
        ),
    ] = None,
    item_id: Annotated[
        OpaqueId | None, Query(alias="itemId", description="The item that `bought-together` and `similar` are about")
    ] = None,
    user_id: Annotated[
        OpaqueId | None, Query(alias="userId", description="The user that `recently-viewed` is about")
    ] = None,
) -> Response:
    """The first items of a list, best first: `popular`, `trending`, `latest`, `recently-viewed`, `bought-together`,
    `similar`, or `segment:<id>`. Fewer than `count` is a legal answer. Ids that the list does not need are ignored."""
    service: RecommendationService = request.app.state.recommendations
    parsed = _filter(filter_)
    headers: dict[str, str] = {}
    if source == SIMILAR:
        if item_id is None:
            raise Invalid.field("itemId", f"the list {SIMILAR} needs it")
        found = await service.similar(usage.scope, SimilarBody(item_id, count), parsed)
        headers = answer_headers(found)
        items = [ScoredItem(item.item_id, item.score) for item in found.items]
    else:
        listed = await service.lists.top(usage.scope, source, count, parsed, item_id=item_id, user_id=user_id)
        items = [ScoredItem(id_, score) for id_, score in listed]
    usage.count()
    return Response(_encode(items), headers=headers, media_type="application/json")


def _filter(text: str | None) -> Filter | None:
    if text is None:
        return None
    try:
        return parse_filter(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise Invalid.field("filter", "must be JSON") from error
    except FilterError as error:
        raise Invalid.field(error.field, error.message) from error
