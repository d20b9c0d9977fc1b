"""Scenarios in requests and responses: a recipe, and what the store knows of it."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from api.http.schemas import Instant, Schema
from api.scenarios.recipe import Recipe

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


_ONLY_SHOWN = ("id", "version", "liveVersion", "createdAt", "updatedAt")


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
