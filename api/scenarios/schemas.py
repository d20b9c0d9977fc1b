"""Scenarios in requests and responses: a recipe, and what the store knows of it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from api.http.schemas import WHOLE, Instant, OpaqueId, Schema, WrittenInstant
from api.scenarios.recipe import Recipe
from api.scenarios.trials import MAX_TRIALS

MAX_PREVIEWED = 50
"""Items of a previewed list."""
_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
_LAST_MOMENT = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
_PREVIEWS: list[Any] = [
    {"userIds": ["196", "22"], "count": 5},
    {"itemIds": ["50"], "recipe": {"caps": [{"field": "genres", "atMost": 2}]}},
]

ScenarioStatus = Literal["draft", "live", "archived"]
ScenarioId = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$"),
    Field(description="1 to 64 lower-case letters, digits, `-` and `_`", examples=["front-page"]),
]
ScenarioName = Annotated[
    str,
    StringConstraints(max_length=100, pattern=r"^[^\x00]*[^\s\x00-\x1f\x7f-\x9f\ufeff][^\x00]*$"),
    Field(description="1 to 100 characters, not all of them blank", examples=["Front page"]),
]


_ONLY_SHOWN = ("id", "version", "liveVersion", "createdAt", "updatedAt", "warnings")


class ScenarioReplacement(Recipe):
    """A recipe with its name and status. What is left out of the recipe gets its default.

    What a response shows may be changed and sent back: members that only responses have are ignored.
    """

    name: ScenarioName
    status: ScenarioStatus | None = Field(
        default=None,
        description="Only a live scenario can be asked for. Where it is left out, it stays as it is; a new scenario is "
        "a draft",
    )

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_only_shown(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        ignored = [name for name in _ONLY_SHOWN if name not in cls.model_fields]
        return {name: value for name, value in body.items() if name not in ignored}

    def recipe(self) -> Recipe:
        """The recipe alone."""
        return Recipe(**{name: getattr(self, name) for name in Recipe.model_fields})


class NewScenario(ScenarioReplacement):
    id: ScenarioId | None = Field(default=None, description="Your own id; generated where it is left out")


class _ScenarioHead(Schema):
    id: str
    name: str
    version: int = Field(description="The newest version, whose recipe this is", examples=[3])
    status: ScenarioStatus
    live_version: int | None = Field(description="The version that requests get; null where it is not live")


class ScenarioOut(Recipe, _ScenarioHead):
    """A scenario with the newest version of its recipe."""

    created_at: Instant
    updated_at: Instant


class ScenarioVersionOut(Recipe):
    """One version of a scenario's recipe."""

    version: int
    created_at: Instant


class RecipeWarning(Schema):
    """A rule of a saved recipe that does what its author hardly wants."""

    rule: str = Field(description="The rule that left most out", examples=["filter"])
    message: str = Field(examples=["leaves nothing for 100 of 100 users"])


class SavedScenario(ScenarioOut):
    warnings: list[RecipeWarning] = Field(
        default=[], description="Rules that leave nothing for some of the 100 users who were active last"
    )


class PreviewRequest(Schema):
    """The users to make lists for, or the items whose similar items are listed: one of both."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _PREVIEWS})

    user_ids: list[OpaqueId] | None = Field(
        default=None, min_length=1, max_length=MAX_TRIALS, description="Lists as `recommend` makes them"
    )
    item_ids: list[OpaqueId] | None = Field(
        default=None, min_length=1, max_length=MAX_TRIALS, description="Lists as `similar` makes them"
    )
    recipe: Recipe | None = Field(default=None, description="The draft; the scenario's newest version where left out")
    count: Annotated[int, Field(strict=True, ge=1, le=MAX_PREVIEWED), WHOLE] = 10
    at: WrittenInstant | None = Field(default=None, description="The moment that windows are compared with; now")

    @field_validator("at")
    @classmethod
    def _has_a_local_time(cls, at: datetime | None) -> datetime | None:
        """Windows compare the local time of any zone, which the first and the last day of the calendar lack."""
        if at is not None and (at < _FIRST_MOMENT or at > _LAST_MOMENT):
            raise ValueError("lies at the end of the calendar")
        return at

    @model_validator(mode="after")
    def _users_or_items(self) -> Self:
        if (self.user_ids is None) == (self.item_ids is None):
            raise ValueError("needs either userIds or itemIds")
        return self

    @property
    def ids(self) -> list[str]:
        """Of the users or items."""
        return self.user_ids or self.item_ids or []


class PreviewMove(Schema):
    """What a rule does to an item: the list is compared with the one that it would be without the rule."""

    rule: str = Field(examples=["boosts.0"])
    from_: int | None = Field(alias="from", description="The position without the rule; null: not in the list")
    to: int | None = Field(description="The position with it; null: not in the list")


class PreviewItem(Schema):
    item_id: str
    score: float = Field(description="The model's")
    moves: list[PreviewMove]


class PreviewLeftOut(Schema):
    item_id: str
    reason: str = Field(
        description="`hidden`, `seen`, `filtered by ...`, `capped by ...`; `moved by ...` where a rule raised others",
        examples=["capped by genres"],
    )
    moves: list[PreviewMove]


class PreviewList(Schema):
    version: int | None = Field(description="The version of the recipe; null where the recipe was sent")
    items: list[PreviewItem]
    out: list[PreviewLeftOut] = Field(description="At most 30 of the items that would be here without a rule")
    degraded: str | None = Field(description="Why no model answered; null where one did")


class UserPreview(Schema):
    user_id: str
    draft: PreviewList = Field(description="By the recipe that was sent, or else by the newest version")
    live: PreviewList | None = Field(description="By the live version; null where there is none")


class ItemPreview(Schema):
    item_id: str
    draft: PreviewList = Field(description="By the recipe that was sent, or else by the newest version")
    live: PreviewList | None = Field(description="By the live version; null where there is none")


class Preview(Schema):
    users: list[UserPreview] = Field(description="In the order of the request; empty where it named items")
    items: list[ItemPreview] = Field(description="In the order of the request; empty where it named users")
