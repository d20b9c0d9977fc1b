"""Sequences: an answer to `recommend`, and the pages that `recommend/next` adds to it.

The items of a page are those of its impression. A row of `recommendation_pages` says which sequence an answer belongs
to, and keeps what was asked for where that is more than its impression tells. An answer without such a row is the first
of a sequence, asked for with default parameters: a plain `recommend` writes nothing here.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from api.background import PeriodicTask
from api.database.engine import UNREACHABLE, Pool
from api.database.parts import delete_in_parts
from api.database.scope import TenantScope
from api.http.families import requested_families
from api.recommendations.bodies import ContextBody, RecommendBody, ScenarioRecommendBody, named_field
from api.recommendations.impressions import DROPPED_REQUEST
from api.recommendations.schemas import RecommendRequest

SEQUENCE_LIFETIME = "1 hour"
"""How long after its first answer a sequence goes on."""
MAX_SEQUENCE_ITEMS = 1_000
"""Items that a sequence shows. A query for a page excludes them, beside what its request excludes."""
MAX_SEQUENCE_PAGES = 1_000
"""Pages of a sequence after its first answer, empty ones included."""
_DEFAULT_ALGORITHM = "hybrid"


class KeptRequest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The parameters that every page of a sequence repeats, as JSON in `recommendation_pages.request`.

    Unknown members are ignored, so that processes of two versions can read each other's.
    """

    algorithm: str | None = None  # None: that of the impression, where it names one that can be asked for
    filter: dict[str, Any] | None = None
    exclude: list[str] = []
    exclude_seen: str | None = None
    diversity: float | None = None
    session_items: list[str] = []
    scenario: str | None = None  # with one, fields that the request did not name are None


@dataclass(frozen=True, slots=True)
class PageSequence:
    """What has been shown of a sequence so far."""

    id: UUID  # the first answer's
    user_id: str
    started_at: datetime  # of the first answer: session items count as of this moment on every page
    pages: int  # after the first answer
    shown: list[str]  # item ids, in the order of the pages
    algorithm: str
    request: KeptRequest

    @property
    def ended(self) -> bool:
        """Whether it has reached its bounds, so that every further page is empty."""
        return len(self.shown) >= MAX_SEQUENCE_ITEMS or self.pages >= MAX_SEQUENCE_PAGES

    def page(self, count: int) -> RecommendBody:
        """The request of the next page: the first one's, without what was shown."""
        kept = self.request
        if kept.scenario is not None:
            return ScenarioRecommendBody(
                user_id=self.user_id,
                count=min(count, MAX_SEQUENCE_ITEMS - len(self.shown)),
                algorithm=kept.algorithm or msgspec.UNSET,  # type: ignore[arg-type]  # as below
                filter=kept.filter,
                exclude=[*kept.exclude, *self.shown],
                exclude_seen=kept.exclude_seen,  # type: ignore[arg-type]
                diversity=msgspec.UNSET if kept.diversity is None else kept.diversity,
                context=ContextBody(kept.session_items) if kept.session_items else None,
                scenario=kept.scenario,
            )
        return RecommendBody(
            self.user_id,
            min(count, MAX_SEQUENCE_ITEMS - len(self.shown)),
            self.algorithm,  # type: ignore[arg-type]  # a plug-in's name too, which the general way lets in
            kept.filter,
            [*kept.exclude, *self.shown],
            kept.exclude_seen,  # type: ignore[arg-type]  # it was validated when it was asked
            kept.diversity or 0.0,
            ContextBody(kept.session_items) if kept.session_items else None,
        )


def kept_request(request: RecommendRequest | RecommendBody, answered_by: str) -> str | None:
    """The JSON to keep of a request for the pages that may follow; None where its impression tells all.

    answered_by: the family of the impression.
    """
    if request.scenario is not None:
        of_scenario = _of_scenario(request)
        return None if of_scenario == KeptRequest(scenario=request.scenario) else _encode(of_scenario).decode()
    algorithm = request.algorithm
    told = algorithm == answered_by or (algorithm == _DEFAULT_ALGORITHM and answered_by not in requested_families())
    session = request.context.session_items if request.context is not None else []
    further = (request.filter, request.exclude, request.exclude_seen, request.diversity or None, session)
    if told and not any(further):
        return None
    return _encode(KeptRequest(algorithm, *further)).decode()


def _of_scenario(request: RecommendRequest | RecommendBody) -> KeptRequest:
    return KeptRequest(
        named_field(request, "algorithm"),
        request.filter,
        request.exclude,
        request.exclude_seen,
        named_field(request, "diversity"),
        request.context.session_items if request.context is not None else [],
        request.scenario,
    )


async def find_sequence(pool: Pool, scope: TenantScope, recommendation_id: UUID) -> PageSequence | None:
    """The sequence that an answer belongs to; None where there is none, or its first answer is too old."""
    rows = await pool.fetch(_FIND, scope.tenant_id, str(recommendation_id))
    if not rows:
        return None
    id_, user_id, algorithm, started_at, scenario, request, pages, shown = rows[0]
    if request == DROPPED_REQUEST:
        return None
    kept = KeptRequest(scenario=scenario) if request is None else _decode(request)
    asked = kept.algorithm or algorithm
    known = asked if asked in requested_families() else _DEFAULT_ALGORITHM
    return PageSequence(id_, user_id, started_at, pages, shown, known, kept)


def expiring_pages(pool: Pool) -> PeriodicTask:
    """Deletes, inside its block, the rows of all tenants that no page can need any more."""
    return PeriodicTask(
        "expiry of pages", lambda: delete_old_pages(pool), _EXPIRY_SECONDS, expected=(psycopg.Error, *UNREACHABLE)
    )


async def delete_old_pages(pool: Pool) -> int:
    """Delete the rows of all tenants that are too old for a page, and return how many there were."""
    return await delete_in_parts(pool, _DELETE_OLD)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KeptRequest).decode

# The first answer has no row or the number 0. An array_agg of nothing is NULL, which `||` leaves out.
_FIND = f"""
WITH asked AS (
    SELECT coalesce(page.sequence_id, shown.recommendation_id) AS sequence_id
    FROM impressions AS shown
    LEFT JOIN recommendation_pages AS page
        ON page.tenant_id = shown.tenant_id AND page.recommendation_id = shown.recommendation_id
    WHERE shown.tenant_id = $1 AND shown.recommendation_id = $2::uuid
)
SELECT
    opening.recommendation_id, opening.user_id, opening.algorithm, opening.created_at, opening.scenario,
    request.request, coalesce(further.pages, 0), opening.item_ids || further.item_ids
FROM asked
JOIN impressions AS opening
    ON opening.tenant_id = $1 AND opening.recommendation_id = asked.sequence_id
    AND opening.created_at > now() - interval '{SEQUENCE_LIFETIME}'
LEFT JOIN recommendation_pages AS request
    ON request.tenant_id = $1 AND request.recommendation_id = asked.sequence_id
CROSS JOIN LATERAL (
    SELECT max(page.number) AS pages,
        array_agg(item.id ORDER BY page.number, item.place) FILTER (WHERE item.id IS NOT NULL) AS item_ids
    FROM recommendation_pages AS page
    JOIN impressions AS shown
        ON shown.tenant_id = page.tenant_id AND shown.recommendation_id = page.recommendation_id
    LEFT JOIN LATERAL unnest(shown.item_ids) WITH ORDINALITY AS item (id, place) ON true
    WHERE page.tenant_id = $1 AND page.sequence_id = asked.sequence_id AND page.number > 0
) AS further
"""  # noqa: S608 - a constant of this module

_EXPIRY_SECONDS = 60.0
# Twice the lifetime: the clocks of the API's processes and of the database need not agree.
_DELETE_OLD = f"""
DELETE FROM recommendation_pages WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM recommendation_pages WHERE created_at < now() - 2 * interval '{SEQUENCE_LIFETIME}'
    LIMIT %(rows)s FOR UPDATE SKIP LOCKED
))
"""  # noqa: S608 - constants of this module
