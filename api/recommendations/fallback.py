"""Time-decayed popularity from the database. It answers, labelled as such, while no model can."""

from api.database.scope import TenantScope
from api.lists.source import POPULAR, ListSource
from configs import spans
from serving.contracts.filters import Filter
from serving.contracts.messages import RankedItem

ALGORITHM = "popularity"
EXPLANATION = "Popular with other users lately"


class Fallback:
    """Ranks popular items from the database alone.

    It applies `filter`, `exclude` and the policy on seen items. It ignores the history, `diversity` and the session.
    """

    def __init__(self, lists: ListSource) -> None:
        self._lists = lists

    def stand_by(self, scope: TenantScope) -> None:
        """Models have answered this tenant. Be ready to take over."""
        self._lists.prepare_popular(scope)

    async def rank(
        self, scope: TenantScope, count: int, exclude: list[str], filter_: Filter | None
    ) -> list[RankedItem]:
        """At most `count` live items: popular ones first, then items without recent interactions, with score 0."""
        with spans.part("rank by popularity"):
            found = await self._lists.top(scope, POPULAR, count, filter_, exclude=exclude)
        return [RankedItem(id_, score, ALGORITHM, EXPLANATION, []) for id_, score in found]
