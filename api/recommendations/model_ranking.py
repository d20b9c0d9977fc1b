"""Asks the models for a ranking, and checks that its items may still be shown."""

import msgspec
import structlog

from api.database.scope import TenantScope
from api.items.catalogue import CatalogueReader
from serving.client import ModelAnswer, ServingClient
from serving.contracts.messages import CatalogueDelta, CataloguePlace, Query, RankedItem

log = structlog.get_logger(__name__)


class ModelRanking:
    """Rankings of the model server whose items are all in the tenant's catalogue."""

    def __init__(self, models: ServingClient, catalogue: CatalogueReader) -> None:
        self._models = models
        self._catalogue = catalogue

    async def rank(self, scope: TenantScope, version: int, query: Query) -> tuple[list[RankedItem], str]:
        """The models' items, best first, and the release that ranked them.

        Items may leave the catalogue while the models answer. Then the models are asked once more without them, so that
        the list is full again; what leaves during the second call is cut from the list.

        version: of the tenant's catalogue, as of the query. Raises ServingUnavailable.
        """
        answer = await self._ask_once(scope, version, query)
        gone = await self._gone(scope, answer)
        if not gone:
            return answer.items, answer.release
        log.info("asking again: items left the catalogue meanwhile", count=len(gone))
        query = msgspec.structs.replace(query, exclude=[*query.exclude, *gone])
        answer = await self._ask_once(scope, await self._catalogue.version(scope), query)
        gone = await self._gone(scope, answer)
        return [item for item in answer.items if item.item_id not in gone], answer.release

    async def _ask_once(self, scope: TenantScope, version: int, query: Query) -> ModelAnswer:
        async def load_delta(since: CataloguePlace) -> CatalogueDelta:
            return await self._catalogue.delta(scope, since)

        return await self._models.ask(scope.tenant_id, version, query, load_delta)

    async def _gone(self, scope: TenantScope, answer: ModelAnswer) -> set[str]:
        """Items of the answer that may not be shown any more; none where the catalogue has not changed since."""
        ids = [item.item_id for item in answer.items]
        if not ids or await self._catalogue.version(scope) == answer.catalogue_version:
            return set()
        return set(ids) - await self._catalogue.live(scope, ids)
