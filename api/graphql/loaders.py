"""What the fields of one operation read, gathered: however many lists it asks for, each kind of read is one round trip.

These stand in for the readers that `Recommender` has, for as long as one request.
"""

from strawberry.dataloader import DataLoader

from api.database.scope import TenantScope
from api.items.catalogue import CatalogueReader
from api.recommendations.history import HistoryReader, UserView
from serving.contracts.messages import CatalogueDelta


class GatheredHistories:
    """Views of several users on one connection; a user who is asked for twice is read once."""

    def __init__(self, histories: HistoryReader) -> None:
        self._histories = histories
        self._views: DataLoader[tuple[TenantScope, str, str | None], UserView] = DataLoader(self._load)

    async def view(self, scope: TenantScope, user_id: str, exclude_seen: str | None) -> UserView:
        return await self._views.load((scope, user_id, exclude_seen))

    async def _load(self, keys: list[tuple[TenantScope, str, str | None]]) -> list[UserView]:
        return await self._histories.views(keys)


class GatheredCatalogue:
    """Looks at the catalogue, those of a moment in one statement. Nothing is remembered: the next moment may differ."""

    def __init__(self, catalogue: CatalogueReader) -> None:
        self._catalogue = catalogue
        self._known: DataLoader[tuple[TenantScope, str], tuple[int, bool]] = DataLoader(self._find, cache=False)
        self._live: DataLoader[tuple[TenantScope, tuple[str, ...]], set[str]] = DataLoader(self._look, cache=False)

    async def find(self, scope: TenantScope, id_: str) -> tuple[int, bool]:
        return await self._known.load((scope, id_))

    async def version(self, scope: TenantScope) -> int:
        return await self._catalogue.version(scope)

    async def live(self, scope: TenantScope, ids: list[str]) -> set[str]:
        return await self._live.load((scope, tuple(ids)))

    async def delta(self, scope: TenantScope, since: int) -> CatalogueDelta:
        return await self._catalogue.delta(scope, since)

    async def _find(self, keys: list[tuple[TenantScope, str]]) -> list[tuple[int, bool]]:
        (scope,) = {scope for scope, _ in keys}  # one request, one credential
        version, known = await self._catalogue.find_all(scope, [id_ for _, id_ in keys])
        return [(version, id_ in known) for _, id_ in keys]

    async def _look(self, keys: list[tuple[TenantScope, tuple[str, ...]]]) -> list[set[str]]:
        (scope,) = {scope for scope, _ in keys}
        live = await self._catalogue.live(scope, list({id_ for _, ids in keys for id_ in ids}))
        return [live & set(ids) for _, ids in keys]
