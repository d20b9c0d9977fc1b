"""A recipe: how a scenario makes a list of items. It is what a version of a scenario stores, and clients send.

`arrange.py` beside this file does what it says. Everything has a bound, since a recipe is applied at each request.
Filters and expressions stay the documents that clients sent; they were parsed once when they were checked.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from api.http.families import requested_families
from api.http.schemas import WHOLE, OpaqueId, WrittenInstant
from api.scenarios.expression import field_path, parse_expression
from feature_store.interaction_types import SeenPolicy
from serving.contracts.filters import FilterError, parse_filter

MAX_RULES = 50
"""Boosts, pins and caps of one recipe together, the expression counted as one."""
MAX_SLOT_SOURCES = 5
"""Different sources of slots: each is asked at every request."""
MAX_FALLBACKS = 5
MAX_WINDOWS = 10
"""Of one rule."""
MAX_POSITION = 1_000
MAX_EXCLUDED_ITEMS = 1_000
MAX_FACTOR = 100.0
"""Of a boost, and the most that an expression counts for."""
MAX_RECIPE_BYTES = 64 * 1024
"""Of the JSON of a recipe."""

SIMILAR_SOURCE = "similar"
LIST_SOURCES = ("popular", "trending", "latest", "recently-viewed", "bought-together")
"""Sources that the pipeline makes. The other ones are model families, `similar` and `segment:<id>`."""
SEGMENT_PREFIX = "segment:"
_SEGMENT = re.compile(r"segment:[^\x00-\x1f\x7f-\x9f]{1,256}\Z")
_FAMILY = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
_STORED = {"stored": True}

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""In the order of `datetime.weekday`."""


def _source(name: str, info: ValidationInfo) -> str:
    known = (*requested_families(), *LIST_SOURCES, SIMILAR_SOURCE)
    stored = bool(info.context and info.context.get("stored"))  # its plug-in may be gone
    if name not in known and not _SEGMENT.match(name) and not (stored and _FAMILY.match(name)):
        raise PydanticCustomError(
            "source", "is no source; known are {known} and segment:<id>", {"known": ", ".join(known)}
        )
    return name


def _parsed(parse: Callable[[Any, str], Any]) -> AfterValidator:
    """Refuses what `parse(document, field)` refuses, in its words."""

    def check(document: Any) -> Any:
        try:
            parse(document, "")
        except FilterError as error:
            at = error.field.lstrip(".")
            message = f"{at}: {error.message}" if at else error.message
            raise PydanticCustomError("document", "{problem}", {"problem": message}) from error
        return document

    return AfterValidator(check)


@lru_cache(maxsize=1)
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _time_zone(name: str) -> str:
    if name not in _time_zones():
        raise PydanticCustomError("time_zone", "is no time zone; write one as Europe/Berlin")
    return name


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


Source = Annotated[str, Field(max_length=264, examples=["hybrid"]), AfterValidator(_source)]
FilterDocument = Annotated[dict[str, Any], _parsed(parse_filter)]
ExpressionDocument = Annotated[dict[str, Any], _parsed(parse_expression)]
FieldPath = Annotated[str, Field(min_length=1), _parsed(field_path)]
ClockTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", examples=["09:00"])]
Position = Annotated[int, Field(strict=True, ge=1, le=MAX_POSITION), WHOLE]


class RecipePart(BaseModel):
    """Base of the parts: frozen, without unknown fields, camelCase outside."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


class DailyHours(RecipePart):
    """From a time of the day up to another, which no longer counts; past midnight where the second is the earlier."""

    from_: ClockTime = Field(alias="from")
    to: ClockTime

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.from_ == self.to:
            raise PydanticCustomError("hours", "begin and end at the same time; leave hours out for whole days")
        return self


class BusinessWindow(RecipePart):
    """When a rule holds: all of these together. Hours past midnight belong to the day on which they begin."""

    from_: WrittenInstant | None = Field(default=None, alias="from", description="The first moment")
    to: WrittenInstant | None = Field(default=None, description="The first moment after it")
    days: Annotated[tuple[Weekday, ...], Field(max_length=7), AfterValidator(_each_once)] = ()
    hours: DailyHours | None = None
    time_zone: Annotated[str, AfterValidator(_time_zone)] = Field(
        default="UTC", description="Of days and hours", examples=["Europe/Berlin"]
    )

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.from_ is None and self.to is None and not self.days and self.hours is None:
            raise PydanticCustomError("window", "needs at least one of from, to, days and hours")
        if isinstance(self.from_, datetime) and isinstance(self.to, datetime) and self.from_ >= self.to:
            raise PydanticCustomError("window", "ends before it begins")
        return self


Windows = Annotated[tuple[BusinessWindow, ...], Field(max_length=MAX_WINDOWS, description="Always, where empty")]


class Exclusions(RecipePart):
    """What is never in the list, whatever a request says or another rule does."""

    items: Annotated[tuple[OpaqueId, ...], Field(max_length=MAX_EXCLUDED_ITEMS)] = ()
    filter: FilterDocument | None = Field(default=None, description="Items that match it are left out")
    seen: SeenPolicy | None = Field(
        default=None, description="Which of the user's items are left out; null: by the tenant's setting"
    )


class Boost(RecipePart):
    """Items that match count for `factor` times their score: above 1 they rise, below 1 they sink."""

    filter: FilterDocument
    factor: Annotated[float, Field(strict=True, ge=0, le=MAX_FACTOR)]
    windows: Windows = ()


class Pin(RecipePart):
    """A position of the list, counted from 1, and what stands there: an item, or the best of a source (a *slot*)."""

    position: Position
    item: OpaqueId | None = None
    source: Source | None = None
    filter: FilterDocument | None = Field(default=None, description="What a slot chooses from")
    windows: Windows = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.item is None) == (self.source is None):
            raise PydanticCustomError("pin", "needs either item or source")
        if self.item is not None and self.filter is not None:
            raise PydanticCustomError("pin", "a filter goes with a source")
        return self


class Cap(RecipePart):
    """At most so many items with the same value of this field. Of an array each element counts."""

    field: FieldPath = Field(examples=["brand"])
    at_most: Annotated[int, Field(strict=True, ge=1, le=100), WHOLE]
    windows: Windows = ()


class Rotation(RecipePart):
    """What was shown to the user and not chosen sinks, and comes back with time."""

    half_life_hours: Annotated[float, Field(strict=True, ge=0.1, le=8_760)] = Field(
        description="After so many hours a showing counts half"
    )
    strength: Annotated[float, Field(strict=True, gt=0, le=1)] = Field(
        default=0.5, description="The share of its score that an item loses by a showing of this moment"
    )


class Recipe(RecipePart):
    """How a list is made. The id, name, version and status belong to the scenario."""

    source: Source = Field(default="hybrid", description="Where candidates come from")
    filter: FilterDocument | None = Field(default=None, description="Candidates match it; a request's own filter wins")
    exclusions: Exclusions = Exclusions()
    boosts: Annotated[tuple[Boost, ...], Field(max_length=MAX_RULES)] = ()
    expression: ExpressionDocument | None = Field(
        default=None, description=f"A factor of the score, linear in metadata and kept within 0 and {MAX_FACTOR:g}"
    )
    pins: Annotated[tuple[Pin, ...], Field(max_length=MAX_RULES)] = ()
    caps: Annotated[tuple[Cap, ...], Field(max_length=MAX_RULES)] = ()
    diversity: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.0
    rotation: Rotation | None = None
    windows: Windows = Field(default=(), description="When boosts, expression, pins, caps and rotation hold")
    fallbacks: Annotated[tuple[Source, ...], Field(max_length=MAX_FALLBACKS), AfterValidator(_each_once)] = Field(
        default=(), description="What fills a list that the source does not, in this order"
    )

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        rules = len(self.boosts) + len(self.pins) + len(self.caps) + (self.expression is not None)
        if rules > MAX_RULES:
            raise PydanticCustomError(
                "rules", "has {rules} rules; at most {most} are", {"rules": rules, "most": MAX_RULES}
            )
        if len({pin.source for pin in self.pins if pin.source}) > MAX_SLOT_SOURCES:
            raise PydanticCustomError(
                "slots", "has slots of more than {most} different sources", {"most": MAX_SLOT_SOURCES}
            )
        own = set(Recipe.model_fields)  # a scenario has more, which does not count
        if (size := len(self.model_dump_json(by_alias=True, exclude_defaults=True, include=own))) > MAX_RECIPE_BYTES:
            raise PydanticCustomError(
                "size", "has {size} characters; at most {most} are kept", {"size": size, "most": MAX_RECIPE_BYTES}
            )
        return self

    @classmethod
    def stored(cls, recipe: Mapping[str, Any]) -> Self:
        """A recipe that was valid when it was stored. Its sources may be gone meanwhile, with their plug-ins."""
        return cls.model_validate(recipe, context=_STORED)
