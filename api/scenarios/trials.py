"""A recipe tried on users or items: its lists, what each rule moves, and why an item is out. Nobody sees them.

The lists are made where all lists are (`api/recommendations`), which imports this domain. So the one
that makes them is a protocol here, and `app.state.recipe_trials` in the application.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Protocol

from fastapi import Depends, Request

from api.database.scope import TenantScope
from api.scenarios.effects import RuleEffect
from api.scenarios.recipe import Recipe
from serving.contracts.messages import RankedItem

MAX_TRIALS = 100
"""Users or items that a recipe is tried on at once."""
CHECKED_COUNT = 10
"""Items of the lists that a recipe is checked by when it is saved."""


@dataclass(frozen=True, slots=True)
class TriedList:
    """The list of one user, or of one item."""

    items: list[RankedItem]
    left_out: dict[str, str]  # by item that the source has: `hidden`, `seen`, `filtered by ...`, `capped by ...`
    effects: list[RuleEffect] = field(default_factory=list)
    degraded: str | None = None  # why no model answered; None where one did


class RecipeTrials(Protocol):
    """Makes the lists of a recipe that need not be stored."""

    async def try_recipe(
        self,
        scope: TenantScope,
        recipe: Recipe,
        user_ids: Sequence[str],
        count: int,
        moment: datetime,
        *,
        explained: bool,
    ) -> list[TriedList]:
        """The lists of these users, in their order.

        moment: with a time zone; for the windows of rules.
        explained: whether the effects of rules are told, for which each list is arranged once more by rule.
        """

    async def try_on_items(
        self, scope: TenantScope, recipe: Recipe, item_ids: Sequence[str], count: int, moment: datetime
    ) -> list[TriedList]:
        """The lists of items like each of these, in their order, with the effects of rules.

        Raises NotFound where the tenant lacks one of the items.
        """


async def _trials(request: Request) -> RecipeTrials:
    trials: RecipeTrials = request.app.state.recipe_trials
    return trials


CurrentTrials = Annotated[RecipeTrials, Depends(_trials)]


def rule_that_leaves_nothing(lists: Sequence[TriedList]) -> tuple[str, int] | None:
    """The rule that leaves most out of the lists that are empty, and how many are; None where no list is.

    A list that is empty because the source has nothing for the user is told as the rule `source`.
    """
    empty = [each for each in lists if not each.items]
    if not empty:
        return None
    reasons = Counter(reason for each in empty for reason in each.left_out.values())
    ((reason, _),) = reasons.most_common(1) or [("source", 0)]
    return reason.removeprefix("filtered by ").removeprefix("capped by "), len(empty)
