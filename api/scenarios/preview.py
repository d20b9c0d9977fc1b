"""Lists of a scenario for given users or items, and what is said of a recipe when it is saved."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

import msgspec
from sqlmodel.ext.asyncio.session import AsyncSession

from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import reading_first
from api.http.slices import turn
from api.scenarios.effects import RuleEffect
from api.scenarios.recipe import Recipe
from api.scenarios.repository import ScenarioRepository
from api.scenarios.schemas import PreviewRequest, RecipeWarning
from api.scenarios.service import get_scenario
from api.scenarios.trials import CHECKED_COUNT, MAX_TRIALS, RecipeTrials, TriedList, rule_that_leaves_nothing

MAX_OUT = 30
"""Items that are told to be out of one list."""
TRIALS_OF_TENANT = 1
"""Trials of one tenant that run at once in a process: each asks the models up to 400 times."""
_running: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()


async def recipes_of(
    session: AsyncSession, scope: TenantScope, scenario_id: str
) -> tuple[tuple[int, Recipe], tuple[int, Recipe] | None]:
    """The newest version of a scenario and the live one, each with its recipe. Raises NotFound."""
    row, newest = await get_scenario(session, scope, scenario_id)
    draft = newest.version, Recipe.stored(newest.recipe)
    if row.live_version in (None, newest.version):
        return draft, draft if row.live_version is not None else None
    live = await ScenarioRepository(session, scope).version(scenario_id, row.live_version or 0)
    return draft, None if live is None else (live.version, Recipe.stored(live.recipe))


async def preview(
    trials: RecipeTrials,
    scope: TenantScope,
    asked: PreviewRequest,
    newest: tuple[int, Recipe],
    live: tuple[int, Recipe] | None,
) -> bytes:
    """The JSON of a `Preview`. Raises NotFound where the tenant lacks an item that is asked for."""
    moment = asked.at or datetime.now(UTC)
    draft = newest if asked.recipe is None else (None, asked.recipe)
    wanted = list(dict.fromkeys(asked.ids))

    async def lists(recipe: Recipe) -> list[TriedList]:
        if asked.item_ids is not None:
            return await trials.try_on_items(scope, recipe, wanted, asked.count, moment)
        return await trials.try_recipe(scope, recipe, wanted, asked.count, moment, explained=True)

    async with _turn_of(scope):
        of_draft = await lists(draft[1])
        of_live = None if live is None else of_draft if live is draft else await lists(live[1])
    id_name = "userId" if asked.item_ids is None else "itemId"
    shown = []
    for at, id_ in enumerate(wanted):
        await turn()
        by_live = None if live is None or of_live is None else _shown(live[0], of_live[at])
        document = {id_name: id_, "draft": _shown(draft[0], of_draft[at]), "live": by_live}
        shown.append(msgspec.Raw(msgspec.json.encode(document)))
    users, items = (shown, []) if asked.item_ids is None else ([], shown)
    return msgspec.json.encode({"users": users, "items": items})


async def warnings_of(
    trials: RecipeTrials, database: Database, scope: TenantScope, recipe: Recipe
) -> list[RecipeWarning]:
    """What the recipe does to the users who were active last that its author hardly wants: it leaves them nothing."""
    async with reading_first(database) as session:  # whose connection others have while the models are asked
        users = await ScenarioRepository(session, scope).active_users(MAX_TRIALS)
    async with _turn_of(scope):
        lists = await trials.try_recipe(scope, recipe, users, CHECKED_COUNT, datetime.now(UTC), explained=False)
    if (found := rule_that_leaves_nothing(lists)) is None:
        return []
    rule, empty = found
    return [RecipeWarning(rule=rule, message=f"leaves nothing for {empty} of {len(users)} users")]


def _turn_of(scope: TenantScope) -> asyncio.Semaphore:
    """The semaphore lives as long as a trial of the tenant waits or runs."""
    return _running.setdefault(scope.tenant_id, asyncio.Semaphore(TRIALS_OF_TENANT))


def _shown(version: int | None, tried: TriedList) -> dict[str, Any]:
    """A `PreviewList`."""
    moves: dict[str, list[RuleEffect]] = {}
    for effect in tried.effects:
        moves.setdefault(effect.item_id, []).append(effect)
    items = [
        {"itemId": item.item_id, "score": item.score, "moves": _moves(moves.pop(item.item_id, ()))}
        for item in tried.items
    ]
    return {"version": version, "items": items, "out": _out(tried.left_out, moves), "degraded": tried.degraded}


def _out(reasons: Mapping[str, str], moves: Mapping[str, Sequence[RuleEffect]]) -> list[dict[str, Any]]:
    """`PreviewLeftOut`s: what rules moved out before what no list had."""
    ids = list(dict.fromkeys([*moves, *reasons]))[:MAX_OUT]
    return [
        {
            "itemId": id_,
            "reason": reasons.get(id_) or f"moved by {moves[id_][0].rule}",
            "moves": _moves(moves.get(id_, ())),
        }
        for id_ in ids
    ]


def _moves(effects: Sequence[RuleEffect]) -> list[dict[str, Any]]:
    return [{"rule": effect.rule, "from": effect.without, "to": effect.with_it} for effect in effects]
