"""What the rules of live scenarios say of items, read from the database and kept by scenario.

A request needs the facts of a few dozen items. They are a function of the recipe and of each item's metadata, so they
are kept until the catalogue changes: a request knows the catalogue's version, and facts of an earlier one are renewed
by the ids of the items that changed since. So what is used is never older than the catalogue that the request has read.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from api.database.engine import Pool
from api.database.prepared import text_array
from api.database.scope import TenantScope
from api.scenarios.live import LiveScenario
from api.scenarios.matching import matches, paths_of
from api.scenarios.rules import HIDDEN, CompiledRecipe, ItemFacts
from serving.contracts.filters import Filter

MAX_SCENARIOS_KEPT = 200
MAX_FACTS = 50_000
"""Of all scenarios together. Those of the scenario that was asked for longest ago go first."""
MAX_CHANGES = 1_000
"""Where more items have changed, all facts of the scenario are read anew."""

_Key = tuple[TenantScope, str, int]


@dataclass(slots=True)
class _Kept:
    compiled: CompiledRecipe
    version: int  # of the catalogue that no fact is older than
    facts: dict[str, ItemFacts] = field(default_factory=dict)


class ScenarioFacts:
    """One per process."""

    def __init__(self, pool: Pool, *, most: int = MAX_FACTS) -> None:
        self._pool = pool
        self._most = most
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    def compiled(self, scope: TenantScope, scenario: LiveScenario, catalogue_version: int) -> CompiledRecipe:
        """The recipe of a scenario, made ready for requests."""
        return self._of(scope, scenario, catalogue_version).compiled

    async def read(
        self, scope: TenantScope, scenario: LiveScenario, ids: Collection[str], catalogue_version: int
    ) -> Mapping[str, ItemFacts]:
        """The facts of these items and of others, as of this version of the catalogue or a later one.

        What is returned changes while others read, so it is to be used before anything is awaited.
        """
        kept = self._of(scope, scenario, catalogue_version)
        if kept.version < catalogue_version:
            await self._renew(scope, kept)
        version, facts = kept.version, kept.facts
        missing = [id_ for id_ in ids if id_ not in facts]
        if not missing:
            return facts
        found = {id_: facts[id_] for id_ in ids if id_ in facts}  # some may be dropped while others are read
        read = await self.read_anew(scope, kept.compiled, missing)
        if kept.version == version:  # else they may be older than what is kept meanwhile
            facts.update(read)
            self._bound(kept)
        return found | read

    async def read_anew(self, scope: TenantScope, compiled: CompiledRecipe, ids: Iterable[str]) -> dict[str, ItemFacts]:
        """The facts of items by any recipe, as of now. Nothing is kept."""
        wanted = list(dict.fromkeys(ids))
        rows = await self._pool.fetch(_FACTS, scope.tenant_id, text_array(wanted), text_array(compiled.keys))
        read = dict.fromkeys(wanted, HIDDEN)
        for id_, is_active, metadata in rows:
            read[id_] = compiled.facts(metadata, is_active=is_active)
        return read

    async def matching(self, scope: TenantScope, tree: Filter, ids: Iterable[str]) -> set[str]:
        """Those of the items that match a filter now."""
        keys = text_array(sorted({path[0] for path in paths_of(tree)}))
        rows = await self._pool.fetch(_FACTS, scope.tenant_id, text_array(ids), keys)
        return {id_ for id_, _, metadata in rows if matches(tree, metadata)}

    def _of(self, scope: TenantScope, scenario: LiveScenario, catalogue_version: int) -> _Kept:
        key = (scope, scenario.id, scenario.version)
        kept = self._kept.get(key)
        # A scenario that is created anew may repeat a version, once its entries in the audit trail were deleted.
        recipe = scenario.recipe
        if kept is None or (kept.compiled.recipe is not recipe and kept.compiled.recipe != recipe):
            kept = self._kept[key] = _Kept(CompiledRecipe.of(scenario.recipe), catalogue_version)
            while len(self._kept) > MAX_SCENARIOS_KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return kept

    async def _renew(self, scope: TenantScope, kept: _Kept) -> None:
        """Drop the facts of the items that have changed."""
        since = kept.version
        rows = await self._pool.fetch(_CHANGED, scope.tenant_id, str(since))
        for version, changed in rows:
            if len(changed) > MAX_CHANGES:
                kept.facts.clear()
            for id_ in changed:
                kept.facts.pop(id_, None)
            kept.version = max(kept.version, version)

    def _bound(self, kept: _Kept) -> None:
        """Drop what is more than may be kept, and not of these facts where others suffice."""
        total = sum(len(each.facts) for each in self._kept.values())
        while total > self._most and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            total -= len(oldest.facts)
        if total > self._most:
            kept.facts.clear()


# An item's metadata is read with one snapshot of its row, reduced to the members that rules look at.
_FACTS = """
SELECT item.id, item.is_active,
    coalesce((
        SELECT jsonb_object_agg(member.key, item.metadata -> member.key)
        FROM unnest((SELECT $3::text[])) AS member (key) WHERE item.metadata ? member.key
    ), '{}'::jsonb)
FROM unnest((SELECT $2::text[])) AS wanted (id)
JOIN items AS item ON item.tenant_id = $1 AND item.id = wanted.id
WHERE item.deleted_at IS NULL
"""

_CHANGED = f"""
SELECT catalogue.version, ARRAY(
    SELECT item.id FROM items AS item WHERE item.tenant_id = $1 AND item.version > $2::bigint LIMIT {MAX_CHANGES + 1}
)
FROM catalogues AS catalogue WHERE catalogue.tenant_id = $1
"""  # noqa: S608 - a constant of this module
