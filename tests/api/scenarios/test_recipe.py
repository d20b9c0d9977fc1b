"""What a recipe may say, and when its rules hold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from api.scenarios.expression import parse_expression
from api.scenarios.recipe import MAX_RULES, Recipe
from api.scenarios.rules import CompiledRecipe
from api.scenarios.windows import holds_at

BOOST = {"filter": {"a": 1}, "factor": 2}
PIN = {"position": 1, "item": "a"}


def nested(depth: int) -> Any:
    return {"$number": "price"} if depth == 0 else {"$add": [nested(depth - 1)]}


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"source": "horoscope"}, "source"),
        ({"source": "segment:"}, "source"),
        ({"filter": {"a": {"$where": "1"}}}, "filter"),
        ({"boosts": [{**BOOST, "factor": 101}]}, "boosts.0.factor"),
        ({"boosts": [BOOST] * 25, "pins": [PIN] * (MAX_RULES - 24)}, ""),
        ({"pins": [{"position": 1}]}, "pins.0"),
        ({"pins": [{"position": 1, "item": "a", "source": "popular"}]}, "pins.0"),
        ({"pins": [{"position": 1, "item": "a", "filter": {"a": 1}}]}, "pins.0"),
        ({"pins": [{"position": 0, "item": "a"}]}, "pins.0.position"),
        ({"pins": [{"position": n, "source": f"segment:{n}"} for n in range(1, 7)]}, ""),
        ({"caps": [{"field": "$brand", "atMost": 1}]}, "caps.0.field"),
        ({"caps": [{"field": "brand", "atMost": 0}]}, "caps.0.atMost"),
        ({"diversity": 1.1}, "diversity"),
        ({"rotation": {"halfLifeHours": 0}}, "rotation.halfLifeHours"),
        ({"windows": [{}]}, "windows.0"),
        ({"windows": [{"days": ["mon"], "timeZone": "America"}]}, "windows.0.timeZone"),
        ({"windows": [{"days": ["mon"], "timeZone": "../../etc/passwd"}]}, "windows.0.timeZone"),
        ({"windows": [{"hours": {"from": "09:00", "to": "24:00"}}]}, "windows.0.hours.to"),
        ({"windows": [{"hours": {"from": "09:00", "to": "09:00"}}]}, "windows.0.hours"),
        ({"windows": [{"from": "2026-01-01T00:00:00"}]}, "windows.0.from"),
        ({"windows": [{"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}]}, "windows.0"),
        ({"fallbacks": ["popular"] * 6}, "fallbacks"),
        ({"expression": {"$multiply": [{"$number": "a"}, {"$number": "b"}]}}, "expression"),
        ({"expression": {"$pow": [{"$number": "a"}, 2]}}, "expression"),
        ({"expression": {"$multiply": [2**53 - 1, 2**53 - 1]}}, "expression"),
        ({"expression": {"$add": [True]}}, "expression"),
        ({"expression": nested(9)}, "expression"),
        ({"expression": {"$add": [1] * 50}}, "expression"),
        ({"boosts": [{"filter": {"a": "x" * 1_000}, "factor": 1}] * 50, "exclusions": {"items": ["y" * 200] * 99}}, ""),
    ],
)
def test_what_is_not_valid_or_past_a_bound_is_refused(recipe: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Recipe.model_validate(recipe)
    assert ".".join(map(str, refused.value.errors()[0]["loc"])) == field


def test_a_stored_recipe_reads_as_it_was_though_its_plug_in_is_gone() -> None:
    recipe = Recipe.model_validate({"filter": {"a": 1}, "boosts": [BOOST], "windows": [{"days": ["mon", "mon"]}]})
    assert Recipe.stored(recipe.model_dump(mode="json", by_alias=True)) == recipe
    assert Recipe.stored({"source": "own-model"}).source == "own-model"


NEW_YORK = {"hours": {"from": "22:00", "to": "02:00"}, "days": ["fri"], "timeZone": "America/New_York"}


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2026-11-28T02:59:59+00:00", False),  # Friday, 21:59:59
        ("2026-11-28T03:00:00+00:00", True),
        ("2026-11-28T06:59:59+00:00", True),  # Saturday, 01:59:59: the hours began on Friday
        ("2026-11-28T07:00:00+00:00", False),
        ("2026-11-29T03:00:00+00:00", False),  # Saturday, 22:00
        ("2026-07-04T02:00:00+00:00", True),  # Friday, 22:00 in summer
        ("2026-07-04T06:00:00+00:00", False),
    ],
)
def test_hours_past_midnight_belong_to_the_day_on_which_they_begin(moment: str, holds: bool) -> None:
    windows = Recipe.model_validate({"windows": [NEW_YORK]}).windows
    assert holds_at(windows, datetime.fromisoformat(moment)) is holds


@pytest.mark.parametrize(
    ("hours", "day", "open_hours"),
    [
        (("01:00", "02:00"), "2026-11-01", [5, 6]),  # the hour that there is twice
        (("02:00", "03:00"), "2026-03-08", []),  # the hour that there is not
        (("01:30", "03:30"), "2026-03-08", [7]),
        (("23:00", "03:00"), "2026-03-08", [4, 5, 6]),
    ],
)
def test_hours_are_those_of_the_local_clock_when_it_is_put_forward_or_back(
    hours: tuple[str, str], day: str, open_hours: list[int]
) -> None:
    window = {"hours": {"from": hours[0], "to": hours[1]}, "timeZone": "America/New_York"}
    windows = Recipe.model_validate({"windows": [window]}).windows
    begin = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    assert [hour for hour in range(4, 24) if holds_at(windows, begin + timedelta(hours=hour))] == open_hours


def test_a_window_begins_with_its_first_moment_and_ends_before_its_last() -> None:
    window = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T03:00:00+01:00"}
    windows = Recipe.model_validate({"windows": [window]}).windows
    begin, second = datetime(2026, 1, 1, tzinfo=UTC), timedelta(seconds=1)
    assert [holds_at(windows, each) for each in (begin - second, begin)] == [False, True]
    assert [holds_at(windows, begin + timedelta(hours=2) - part) for part in (second, 0 * second)] == [True, False]


def test_outside_of_its_windows_a_recipe_has_no_rules() -> None:
    document = {"boosts": [BOOST], "pins": [PIN], "diversity": 0.5, "windows": [{"to": "2026-01-01T00:00:00Z"}]}
    compiled = CompiledRecipe.of(Recipe.model_validate(document))
    before, after = compiled.at(datetime(2025, 12, 31, tzinfo=UTC)), compiled.at(datetime(2026, 1, 1, tzinfo=UTC))
    assert (before.boosts, dict(before.pins), before.diversity) == ((2.0,), {1: (0, "a")}, 0.5)
    assert (after.boosts, dict(after.pins), after.diversity) == ((1.0,), {}, 0.0)


def test_an_expression_is_linear_in_numbers_and_in_the_age_of_dates() -> None:
    price = {"$multiply": [-2, {"$subtract": [{"$number": "price", "missing": 5}, 1]}]}
    expression = parse_expression({"$add": [10, price, {"$days": "seen.at"}]})
    moment = datetime(2026, 1, 3, 12, tzinfo=UTC).timestamp()

    def value(metadata: dict[str, Any]) -> float:
        return expression.value(expression.readings_of(metadata), moment)

    assert value({"price": 3, "seen": {"at": "2026-01-01"}}) == 10 - 2 * 2 + 2.5
    assert value({"price": 3, "seen": {"at": "2026-01-04T00:00:00+12:00"}}) == 10 - 2 * 2
    assert value({"price": True, "seen": {"at": 2026}}) == 10 - 2 * 4
    assert value({"price": 10**400}) < -(2**53)
