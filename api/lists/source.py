"""Lists of items that need no model: what is popular, new, rising, bought together, seen last, or a segment's.

`popular`, `latest` and `recently-viewed` are read as they are now. The pipeline makes the others (`feature_store`:
`item_lists.py`, `segments.py`) and stores them in `item_lists`.
"""

from collections.abc import Collection
from uuid import UUID

from api.database.engine import Pool
from api.database.scope import TenantScope
from api.http.problems import Invalid, NotFound
from api.items.catalogue import CatalogueReader
from api.items.filter_sql import Condition
from api.lists.live_items import LiveItems, condition_on_items
from api.lists.popular import PopularityReader
from api.lists.repository import StoredLists
from feature_store.columns import BOUGHT_TOGETHER, SEGMENT_LIST, TRENDING
from feature_store.interaction_types import HALF_LIFE_DAYS
from serving.contracts.filters import And, Filter

POPULAR, LATEST, RECENTLY_VIEWED = "popular", "latest", "recently-viewed"
"""Names of the lists that are read as they are now."""

Listed = list[tuple[str, float]]
"""Item ids, each with a score in [0, 1] that does not increase down the list."""


class ListSource:
    """The lists of all tenants. Every read leaves out what is hidden, deleted or not matched by the filter now."""

    def __init__(self, pool: Pool) -> None:
        self._items = LiveItems(pool)
        self._popularity = PopularityReader(pool)
        self._stored = StoredLists(pool)
        self._catalogue = CatalogueReader(pool)

    async def top(
        self,
        scope: TenantScope,
        source: str,
        count: int,
        filter_: Filter | None = None,
        *,
        exclude: Collection[str] = (),
        item_id: str | None = None,
        user_id: str | None = None,
    ) -> Listed:
        """The first `count` items of a list; fewer where it has no more.

        Args:
            item_id: whose list it is, where each item has one (`bought-together`).
            user_id: whose list it is, where each user has one (`recently-viewed`). The user may be unknown.

        Raises NotFound where the tenant has no list of this name or no such item, and Invalid without an id that the
        list needs.
        """
        condition, left_out = condition_on_items(filter_), list(exclude)
        if source == POPULAR:
            return await self._popular(scope, count, condition, left_out)
        if source == LATEST:
            return _aged(await self._items.newest(scope, left_out, condition, count))
        if source == TRENDING:
            return await self._stored.top(scope, TRENDING, "", left_out, condition, count)
        if source == BOUGHT_TOGETHER:
            of_item = await self._known_item(scope, item_id)
            return await self._stored.top(scope, BOUGHT_TOGETHER, of_item, left_out, condition, count)
        if source == RECENTLY_VIEWED:
            if user_id is None:
                raise Invalid.field("userId", f"the list {source} needs it")
            return _aged(await self._stored.recently_viewed(scope, user_id, left_out, condition, count))
        return await self._segment(scope, source, count, filter_, left_out)

    def prepare_popular(self, scope: TenantScope) -> None:
        """See that the next read of `popular` finds it in memory."""
        self._popularity.prepare(scope)

    async def _popular(self, scope: TenantScope, count: int, condition: Condition, exclude: list[str]) -> Listed:
        """Popular items, then items without recent interactions, with score 0."""
        popular = await self._popularity.of(scope)
        found = [
            (popular.ids[at], popular.scores[at])
            for at in await self._items.first(scope, popular.ids, exclude, condition, count)
        ]
        if len(found) < count:
            others = await self._items.others(scope, popular.ids, exclude, condition, count - len(found))
            found += [(id_, 0.0) for id_ in others]
        return found

    async def _segment(
        self, scope: TenantScope, source: str, count: int, filter_: Filter | None, exclude: list[str]
    ) -> Listed:
        """What the users of a segment choose, or a segment's items by popularity."""
        segment_id = segment_of(source)
        segment = None if segment_id is None else await self._stored.segment(scope, segment_id)
        if segment is None:
            raise NotFound("There is no such list")
        if not segment.of_items:  # its filter is on what makes a user a member, and not on what is shown
            return await self._stored.top(scope, source, "", exclude, condition_on_items(filter_), count)
        parts = tuple(part for part in (segment.filter, filter_) if part is not None)
        condition = condition_on_items(And(parts))
        if segment.has_behaviour:
            return await self._stored.top(scope, source, "", exclude, condition, count)
        return await self._popular(scope, count, condition, exclude)

    async def _known_item(self, scope: TenantScope, item_id: str | None) -> str:
        if item_id is None:
            raise Invalid.field("itemId", f"the list {BOUGHT_TOGETHER} needs it")
        _, exists, _ = await self._catalogue.find(scope, item_id)
        if not exists:
            raise NotFound("There is no such item")
        return item_id


def segment_of(source: str) -> UUID | None:
    """The id of the segment whose list this name names; None for any other name."""
    prefix, id_ = source[: len(SEGMENT_LIST)], source[len(SEGMENT_LIST) :]
    if prefix != SEGMENT_LIST:
        return None
    try:
        found = UUID(id_)
    except ValueError:
        return None
    return found if str(found) == id_ else None


def _aged(items: list[tuple[str, float]]) -> Listed:
    """Items with their ages in seconds, as items with what something of this age counts: half at `HALF_LIFE_DAYS`."""
    half_life = HALF_LIFE_DAYS * 86_400
    return [(id_, round(1 / (1 + max(0.0, seconds) / half_life), 6)) for id_, seconds in items]
