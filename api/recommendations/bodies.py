"""Valid bodies of the direct routes, decoded by msgspec.

Each type takes a part of what the schema of the same route takes (`api/recommendations/schemas.py`), with the same
meaning; a property test holds them to that. What it leaves out, such as unknown fields, `5.0` for a count and names in
snake case, takes the general way.
"""

from typing import Annotated, Any

import msgspec

from api.http.direct_routes import DirectId, read_json
from api.http.schemas import Schema
from api.recommendations.schemas import MAX_EXCLUDE, MAX_SESSION, RecommendRequest
from feature_store.interaction_types import SeenPolicy
from serving.contracts.filters import Filter, parse_filter
from serving.contracts.messages import Algorithm, Count, UnitInterval

Excluded = Annotated[list[DirectId], msgspec.Meta(max_length=MAX_EXCLUDE)]


class ContextBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A `RecommendContext`."""

    session_items: Annotated[list[DirectId], msgspec.Meta(max_length=MAX_SESSION)] = []


class RecommendBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A `RecommendRequest`."""

    user_id: DirectId
    count: Count
    algorithm: Algorithm = "hybrid"
    filter: dict[str, Any] | None = None
    exclude: Excluded = []
    exclude_seen: SeenPolicy | None = None
    diversity: UnitInterval = 0.0
    context: ContextBody | None = None
    scenario: None = None


class ScenarioRecommendBody(RecommendBody, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """A `RecommendRequest` with a scenario. What it leaves out is the scenario's to say, so it has no default here."""

    algorithm: Algorithm | msgspec.UnsetType = msgspec.UNSET  # type: ignore[assignment]
    diversity: UnitInterval | msgspec.UnsetType = msgspec.UNSET  # type: ignore[assignment]
    scenario: DirectId  # type: ignore[assignment]


class SimilarBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A `SimilarRequest`."""

    item_id: DirectId
    count: Count
    filter: dict[str, Any] | None = None
    exclude: Excluded = []
    scenario: DirectId | None = None


def named_field(request: RecommendRequest | RecommendBody, name: str) -> Any:
    """A field that the request names itself; None where it does not."""
    value = getattr(request, name)
    if isinstance(request, Schema):
        return value if name in request.model_fields_set else None
    return None if value is msgspec.UNSET else value


_recommend = msgspec.json.Decoder(RecommendBody)
_by_scenario = msgspec.json.Decoder(ScenarioRecommendBody)
_SCENARIO = b'"scenario"'
_similar = msgspec.json.Decoder(SimilarBody)


def read_recommend(body: bytes) -> tuple[RecommendBody, Filter | None]:
    """The request and its filter. Raises one of `NOT_DIRECT` for what takes the general way."""
    request: RecommendBody
    try:
        request = read_json(_by_scenario, body) if _SCENARIO in body else read_json(_recommend, body)
    except msgspec.ValidationError:  # such as where the words stand in another field
        request = read_json(_recommend, body)
    return request, _filter(request.filter)


def read_similar(body: bytes) -> tuple[SimilarBody, Filter | None]:
    """The request and its filter. Raises one of `NOT_DIRECT` for what takes the general way."""
    request = read_json(_similar, body)
    return request, _filter(request.filter)


def _filter(document: dict[str, Any] | None) -> Filter | None:
    return None if document is None else parse_filter(document)
