"""Version 1 of the protocol, whose media type names no version. Never change it: programs that run speak it.

The structs are the messages as version 1 has them on the wire. Recorded bytes are in
`tests/fixtures/protocol/version_1`. Filters are those of `serving/contracts/filters.py`: a change of their form
needs a copy of the old form here.
"""

from typing import Any, Literal

import msgspec

from serving.contracts.codec import Codec, encode_with_any_integer, items_of
from serving.contracts.filters import Filter
from serving.contracts.histories import pack_history, read_history, read_ids
from serving.contracts.messages import (
    BatchRequest,
    BatchResponse,
    CatalogueDelta,
    Count,
    HistoryEvent,
    ItemChange,
    Query,
    QueryError,
    RankedItem,
    RecommendQuery,
    ServingUnavailable,
    SimilarQuery,
    UnitInterval,
)


class _HistoryEvent(msgspec.Struct, frozen=True, array_like=True):
    item_id: str
    type: str
    weight: float
    timestamp: int


class _RecommendQuery(msgspec.Struct, frozen=True, tag="recommend"):
    algorithm: str
    count: Count
    history: list[_HistoryEvent] = []
    exclude: list[str] = []
    filter: Filter | None = None
    diversity: UnitInterval = 0.0
    trace_id: str = ""


class _SimilarQuery(msgspec.Struct, frozen=True, tag="similar"):
    item_id: str
    count: Count
    exclude: list[str] = []
    filter: Filter | None = None
    trace_id: str = ""


class _ItemChange(msgspec.Struct, frozen=True):
    item_id: str
    version: int
    is_active: bool
    metadata: dict[str, Any] | None


class _CatalogueDelta(msgspec.Struct, frozen=True):
    since: int
    version: int
    changes: list[_ItemChange]


class _BatchRequest(msgspec.Struct, frozen=True):
    tenant_id: str
    catalogue_version: int
    queries: list[_RecommendQuery | _SimilarQuery]
    delta: _CatalogueDelta | None = None


class _RankedItem(msgspec.Struct, frozen=True, rename="camel"):
    item_id: str
    score: float
    algorithm: str
    explanation: str
    evidence: list[str]


class _BatchResponse(msgspec.Struct, frozen=True):
    status: Literal["ok", "delta_needed", "no_release"]
    release: str = ""
    catalogue_version: int = 0
    answers: list[list[_RankedItem] | QueryError] = []


def _encode_request(request: BatchRequest) -> bytes:
    delta = request.delta
    if delta is not None and (delta.since_item is not None or not delta.complete):
        raise ServingUnavailable("serving-unavailable", "version 1 carries no parts of a catalogue delta")
    message = _BatchRequest(
        request.tenant_id,
        request.catalogue_version,
        [_query_out(query) for query in request.queries],
        None if delta is None else _CatalogueDelta(delta.since, delta.version, [_change_out(c) for c in delta.changes]),
    )
    return encode_with_any_integer(message)


def _query_out(query: Query) -> _RecommendQuery | _SimilarQuery:
    if isinstance(query, SimilarQuery):
        return _SimilarQuery(query.item_id, query.count, query.exclude, query.filter, query.trace_id)
    history = [
        _HistoryEvent(each.item_id, each.type, each.weight, each.timestamp) for each in read_history(query.history)
    ]
    exclude = [*query.exclude, *read_ids(query.seen)]
    return _RecommendQuery(
        query.algorithm, query.count, history, exclude, query.filter, query.diversity, query.trace_id
    )


def _change_out(change: ItemChange) -> _ItemChange:
    return _ItemChange(change.item_id, change.version, change.is_active, change.metadata)


def _decode_request(body: bytes) -> BatchRequest:
    message = _request_decoder.decode(body)
    delta = message.delta
    return BatchRequest(
        message.tenant_id,
        message.catalogue_version,
        [_query_in(query) for query in message.queries],
        None if delta is None else CatalogueDelta(delta.since, delta.version, [_change_in(c) for c in delta.changes]),
    )


def _query_in(query: _RecommendQuery | _SimilarQuery) -> Query:
    if isinstance(query, _SimilarQuery):
        return SimilarQuery(query.item_id, query.count, query.exclude, query.filter, query.trace_id)
    history = pack_history(HistoryEvent(each.item_id, each.type, each.weight, each.timestamp) for each in query.history)
    return RecommendQuery(
        query.algorithm, query.count, history, query.exclude, query.filter, query.diversity, query.trace_id
    )


def _change_in(change: _ItemChange) -> ItemChange:
    return ItemChange(change.item_id, change.version, change.is_active, change.metadata)


def _encode_response(response: BatchResponse) -> bytes:
    answers = [
        answer if isinstance(answer, str) else [_item_out(item) for item in items_of(answer)]
        for answer in response.answers
    ]
    return _encode(_BatchResponse(response.status, response.release, response.catalogue_version, answers))


def _item_out(item: RankedItem) -> _RankedItem:
    return _RankedItem(item.item_id, item.score, item.algorithm, item.explanation, item.evidence)


def _decode_response(body: bytes) -> BatchResponse:
    message = _response_decoder.decode(body)
    answers = [answer if isinstance(answer, str) else [_item_in(item) for item in answer] for answer in message.answers]
    return BatchResponse(message.status, message.release, message.catalogue_version, answers)


def _item_in(item: _RankedItem) -> RankedItem:
    return RankedItem(item.item_id, item.score, item.algorithm, item.explanation, item.evidence)


_encode = msgspec.msgpack.Encoder().encode
_request_decoder = msgspec.msgpack.Decoder(_BatchRequest)
_response_decoder = msgspec.msgpack.Decoder(_BatchResponse)

VERSION_1 = Codec(
    version=1,
    media_type="application/vnd.msgpack",
    encode_request=_encode_request,
    decode_request=_decode_request,
    encode_response=_encode_response,
    decode_response=_decode_response,
)
