"""The live scenarios, as requests ask for them.

A process keeps the recipes that it has read. Whether they are still right it learns without a further query: each
change of a tenant's scenarios raises `tenants.scenario_edition` in its transaction, and the statement that a request
begins with reads that number. So a change holds at once in every process.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.database.batch_loader import BatchLoader
from api.database.engine import Pool
from api.database.prepared import text_array
from api.database.scope import TenantScope
from api.scenarios.recipe import Recipe

MAX_KEPT = 1_000
"""Recipes that a process keeps, those of all tenants together. The one that was asked for longest ago goes first."""


@dataclass(frozen=True, slots=True)
class LiveScenario:
    """The live version of a scenario."""

    id: str
    version: int
    recipe: Recipe


class LiveScenarios:
    """One per process. Concurrent callers share statements."""

    def __init__(self, pool: Pool, *, kept: int = MAX_KEPT) -> None:
        self._pool = pool
        self._bound = kept
        self._kept: OrderedDict[tuple[TenantScope, str], tuple[int, LiveScenario]] = OrderedDict()
        self._loads = BatchLoader(self._read)

    async def get(self, scope: TenantScope, scenario_id: str, edition: int | None = None) -> LiveScenario | None:
        """The live version of the tenant's scenario; None where there is no live one.

        edition: `tenants.scenario_edition` as this request has read it, such as in `UserView.scenario_edition`. A
            recipe of this edition or a newer one needs no query. None: the database is asked.

        Raises ValidationError where the stored recipe is none. Requests for other scenarios do not meet it.
        """
        key = (scope, scenario_id)
        kept = self._kept.get(key)
        if edition is not None and kept is not None and kept[0] >= edition:
            self._kept.move_to_end(key)
            return kept[1]
        found = await self._loads.load(key)
        if found is None:
            self._kept.pop(key, None)
            return None
        read_at, version, recipe = found
        live = LiveScenario(scenario_id, version, Recipe.stored(recipe))
        self._keep(key, (read_at, live))
        return live

    def _keep(self, key: tuple[TenantScope, str], found: tuple[int, LiveScenario]) -> None:
        kept = self._kept.get(key)
        if kept is None or kept[0] <= found[0]:
            self._kept[key] = found
            self._kept.move_to_end(key)
        while len(self._kept) > self._bound:
            self._kept.popitem(last=False)

    async def _read(self, keys: list[tuple[TenantScope, str]]) -> list[tuple[int, int, Mapping[str, Any]] | None]:
        """By (tenant, id): the tenant's edition, and the live version with its recipe; None where none is live."""
        rows = await self._pool.fetch(
            _LIVE, text_array(scope.tenant_id for scope, _ in keys), text_array(id_ for _, id_ in keys)
        )
        found = {(tenant, id_): (edition, version, recipe) for tenant, id_, edition, version, recipe in rows}
        return [found.get((scope.tenant_id, id_)) for scope, id_ in keys]


_LIVE = """
SELECT asked.tenant_id, asked.id, tenant.scenario_edition, scenario.live_version, kept.recipe
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, id)
JOIN tenants AS tenant ON tenant.id = asked.tenant_id
JOIN scenarios AS scenario ON scenario.tenant_id = asked.tenant_id AND scenario.id = asked.id
JOIN scenario_versions AS kept
    ON kept.tenant_id = scenario.tenant_id AND kept.scenario_id = scenario.id AND kept.version = scenario.live_version
"""
