"""Messages between the API and the model server: MessagePack over HTTP, validated by msgspec on both sides.

This is their form in the newest version of the protocol (`serving/contracts/protocol.py`). A change of the form that an
earlier program cannot read needs a new version, and a codec that still writes the form of the version before.

A batch holds queries of one tenant. It names the catalogue version that the API has just read in the database. Where
the server does not hold that version, it answers `delta_needed` with the version that it holds, and the API sends the
batch again with the catalogue delta since then. A large delta comes in parts, in batches without queries; the version
rises when all of them have come.
"""

from typing import Annotated, Any, Literal

import msgspec

from serving.contracts.filters import Filter

Algorithm = Literal["collaborative", "content-based", "hybrid", "deep-learning"]
ALGORITHMS: tuple[Algorithm, ...] = ("collaborative", "content-based", "hybrid", "deep-learning")
"""The families that every installation has. A plug-in (`configs.plugins`) adds a family under its own name."""
BATCH_PATH = "/v1/batch"
MAX_COUNT = 100
RELEASES_PATH = "/v1/releases"  # GET: {tenant: ReleaseInfo} of the loaded releases


Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
UnitInterval = Annotated[float, msgspec.Meta(ge=0, le=1)]
UnavailableReason = Literal["serving-unavailable", "no-release", "no-model"]
QueryError = Literal["unknown_item", "no_model", "failed"]


class ServingUnavailable(Exception):  # noqa: N818 - not a fault of the program: callers fall back to popularity
    """No model can answer now. `reason` is shown to the client in `X-Recommendation-Degraded`."""

    def __init__(self, reason: UnavailableReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason: UnavailableReason = reason


class HistoryEvent(msgspec.Struct, frozen=True, array_like=True):
    """One interaction of a user's history."""

    item_id: str
    type: str
    weight: float
    timestamp: int  # microseconds since the epoch, UTC


EMPTY_ARRAY = msgspec.Raw(b"\x90")  # MessagePack's array without elements


class RecommendQuery(msgspec.Struct, frozen=True, tag="recommend"):
    """A query for items for a user.

    `history` is MessagePack of an array of `HistoryEvent`, oldest first, `seen` of an array of item ids. The API passes
    both on as the database built them, and the model server reads them with `serving/contracts/histories.py`. Of more
    than `HistorySettings.max_events` events the newest count: those of the session come after those of the database.
    """

    algorithm: str  # a family of the release
    count: Count
    history: msgspec.Raw = EMPTY_ARRAY
    exclude: list[str] = []  # item ids that must not appear
    filter: Filter | None = None
    diversity: UnitInterval = 0.0
    trace_id: str = ""
    seen: msgspec.Raw = EMPTY_ARRAY  # further item ids that must not appear: by `excludeSeen`, those the user had


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


class CataloguePlace(msgspec.Struct, frozen=True, array_like=True):
    """A place among the items of a catalogue in the order of their last changes: by version, then by item id.

    It stands for what is known: the items up to this place. Where `item_id` is None, all of `version` are.
    """

    version: int
    item_id: str | None = None

    @property
    def order(self) -> tuple[int, bool, str]:
        """Places compare as their orders do."""
        return self.version, self.item_id is None, self.item_id or ""


class CatalogueDelta(msgspec.Struct, frozen=True):
    """The items that changed after one place of the catalogue up to another, each in the state of its last change.

    A complete delta ends with a version: then it holds every item whose version is above `since`, in its state at
    `version`. A large one comes in several parts, of which all but the last end with an item.
    """

    since: int
    version: int
    changes: list[ItemChange]
    since_item: str | None = None
    last_item: str | None = None

    @property
    def start(self) -> CataloguePlace:
        return CataloguePlace(self.since, self.since_item)

    @property
    def end(self) -> CataloguePlace:
        return CataloguePlace(self.version, self.last_item)

    @property
    def complete(self) -> bool:
        return self.last_item is None


class BatchRequest(msgspec.Struct, frozen=True):
    tenant_id: str
    catalogue_version: int
    queries: list[Query]
    delta: CatalogueDelta | None = None


class ScoredItem(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An item of a ranked list. The API sends it to the client as it is, so its JSON names are those of the API."""

    item_id: str
    score: float  # in [0, 1]


class RankedItem(ScoredItem, frozen=True, rename="camel", gc=False):
    """A recommended item with its explanation."""

    algorithm: str  # the family that contributed more than half of the score, else the family that was asked
    explanation: str
    evidence: list[str]  # at most three item ids of the history


class BatchResponse(msgspec.Struct, frozen=True):
    """The answers, in the order of the queries; a status other than "ok" says why there are none."""

    status: Literal["ok", "delta_needed", "no_release"]
    release: str = ""
    catalogue_version: int = 0  # of the answers; with "delta_needed", the version that the server holds
    answers: list[list[RankedItem] | QueryError] = []  # the ranked items, or why that query alone has no answer
    place: CataloguePlace | None = None  # where a delta has to start; None: at `catalogue_version`


class ReleaseInfo(msgspec.Struct, frozen=True):
    release: str
    created_at: str
    base_version: int  # of the catalogue that the release was built from
    catalogue_version: int  # of the catalogue that is served, with the deltas that came since
    families: dict[str, str]  # family -> model version
