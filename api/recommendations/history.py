"""Reads a user for one request: the newest events, the seen items, and the catalogue's version."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from psycopg.rows import TupleRow

from api.database.batch_loader import BatchLoader
from api.database.engine import Pool
from api.database.prepared import text_array
from api.database.scope import TenantScope
from api.recommendations.history_sql import VIEWS
from api.recommendations.history_store import BuiltHistory, HistoryStore
from api.tenants.problems import TenantGone
from configs import spans
from configs.history import HistorySettings
from feature_store.interaction_types import SeenPolicy
from feature_store.online import form_of
from serving.contracts.messages import EMPTY_ARRAY

ViewKey = tuple[TenantScope, str, str | None]
"""The tenant, the user's id, and the policy on seen items (None: the tenant's default)."""


@dataclass(frozen=True, slots=True)
class UserView:
    """What the database holds of one user at one moment."""

    catalogue_version: int
    exclude_seen: SeenPolicy  # the request's, else the tenant's
    history: msgspec.Raw  # oldest first, at most HistorySettings.max_events, as `RecommendQuery` sends it
    seen: msgspec.Raw  # item ids, newest first, at most HistorySettings.max_seen
    scenario_edition: int  # for `LiveScenarios.get`
    holdout_share: float  # of the tenant's users, in [0, 1]


class HistoryReader:
    """Reads user views. Views that are requested at the same time are read in one round trip."""

    def __init__(self, pool: Pool, settings: HistorySettings, store: HistoryStore | None = None) -> None:
        """store: keeps the histories that a read had to build; None: they are built at each read."""
        self._pool = pool
        self._store = store
        self._constants = tuple(
            map(str, (form_of(settings), settings.max_events, settings.max_seen, settings.max_scanned))
        )
        self._views = BatchLoader(self._read)

    async def view(self, scope: TenantScope, user_id: str, exclude_seen: str | None) -> UserView:
        """The view of one user, who may be unknown. Raises TenantGone."""
        with spans.part("read the user"):
            view = await self._views.load((scope, user_id, exclude_seen))
        if view is None:
            raise TenantGone
        return view

    async def _read(self, keys: Sequence[ViewKey]) -> list[UserView | None]:
        """The views in the order of their keys; None where the tenant is gone."""
        rows = await self._pool.fetch(
            VIEWS,
            text_array([scope.tenant_id for scope, _, _ in keys]),
            text_array([user_id for _, user_id, _ in keys]),
            text_array([exclude_seen for _, _, exclude_seen in keys]),
            *self._constants,
        )
        return [self._view(key, row) for key, row in zip(keys, rows, strict=True)]

    def _view(self, key: ViewKey, row: TupleRow) -> UserView | None:
        catalogue_version, policy, events, seen, bought, version, incarnation, edition, holdout_share = row
        if catalogue_version is None:
            return None
        if version is not None and self._store is not None:
            scope, user_id, _ = key
            self._store.offer(scope, user_id, BuiltHistory(incarnation, version, events, seen, bought))
        left_out = {"all": seen, "bought": bought}.get(policy)
        return UserView(
            catalogue_version,
            policy,
            msgspec.Raw(events),
            EMPTY_ARRAY if left_out is None else msgspec.Raw(left_out),
            edition,
            holdout_share,
        )
