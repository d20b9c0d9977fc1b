"""Messages between the API and the model server: MessagePack over HTTP, validated by msgspec on both sides.

One batch is of one tenant. It names the catalogue version that the API read in the database of that moment; where
the server does not hold it, the server answers `delta_needed` with the version its release was built from, and the
API sends the batch again with the catalogue delta since then.
"""

from typing import Annotated, Any, Literal

import msgspec

from serving.contracts.filters import Filter

Algorithm = Literal["collaborative", "content-based", "hybrid", "deep-learning"]
ALGORITHMS: tuple[Algorithm, ...] = ("collaborative", "content-based", "hybrid", "deep-learning")
"""Families that every installation has; plug-ins (`configs.plugins`) are asked for by their own names."""
BATCH_PATH = "/v1/batch"
MEDIA_TYPE = "application/vnd.msgpack"
MAX_COUNT = 100
RELEASES_PATH = "/v1/releases"  # GET: {tenant: ReleaseInfo} of what is loaded


Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One interaction of a user's history."""

    item_id: str
    type: str
    weight: float
    timestamp: int  # microseconds since the epoch, UTC


class RecommendQuery(msgspec.Struct, frozen=True, tag="recommend"):
    algorithm: str  # a family of the release
    count: Count
    history: list[Event] = []  # oldest first, at most HistorySettings.max_events
    exclude: list[str] = []  # item ids that must not appear: the caller's and, by `excludeSeen`, the seen ones
    filter: Filter | None = None
    diversity: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    trace_id: str = ""


class SimilarQuery(msgspec.Struct, frozen=True, tag="similar"):
    item_id: str
    count: Count
    exclude: list[str] = []
    filter: Filter | None = None
    trace_id: str = ""


Query = RecommendQuery | SimilarQuery


class ItemChange(msgspec.Struct, frozen=True):
    """The state of one item that changed since a release. `metadata` is None where the item is gone."""

    item_id: str
    version: int
    is_active: bool
    metadata: dict[str, Any] | None


class CatalogueDelta(msgspec.Struct, frozen=True):
    """Every item whose version is above `since`, in its state at `version`."""

    since: int
    version: int
    changes: list[ItemChange]


class BatchRequest(msgspec.Struct, frozen=True):
    tenant_id: str
    catalogue_version: int
    queries: list[Query]
    delta: CatalogueDelta | None = None


class RankedItem(msgspec.Struct, frozen=True, array_like=True):
    item_id: str
    score: float  # in [0, 1]
    algorithm: str  # family that carried the item
    evidence: list[str]  # at most three item ids of the history
    explanation: str


class Answer(msgspec.Struct, frozen=True):
    """The answer to one query; `error` where that query alone could not be answered."""

    items: list[RankedItem] = []
    error: Literal["unknown_item", "no_model", "failed"] | None = None


class BatchResponse(msgspec.Struct, frozen=True):
    """`status` other than "ok" answers no query and says why for the whole batch."""

    status: Literal["ok", "delta_needed", "no_release"]
    release: str = ""
    base_version: int = 0  # of the catalogue: what the answers were laid over, or where a delta has to start
    answers: list[Answer] = []


class ReleaseInfo(msgspec.Struct, frozen=True):
    release: str
    created_at: str
    base_version: int
    catalogue_version: int
    families: dict[str, str]  # family -> model version
