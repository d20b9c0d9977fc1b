"""Aliases and holds in a real MLflow store: what the program moved is told from what a person moved."""

from pathlib import Path

import pytest

from tests.fixtures.mlflow_store import mlflow_store
from training.tracking.aliases import IN_MLFLOW, Aliases, ModelAliases

NAME = "acme.hybrid"


@pytest.fixture
def registry(tmp_path: Path) -> Aliases:
    """A registered model with four versions and no alias."""
    found = Aliases(mlflow_store(tmp_path))
    found.client.create_registered_model(NAME)
    for _ in range(4):
        found.client.create_model_version(NAME, source=tmp_path.as_uri())
    return found


def read(registry: Aliases) -> ModelAliases:
    found = registry.model_aliases(NAME)
    assert found is not None
    return found


def by_hand(registry: Aliases, version: str) -> ModelAliases:
    """What the registry says after a person moved the alias in MLflow and the program noticed."""
    registry.client.set_registered_model_alias(NAME, "champion", version)
    return registry.notice_move(read(registry))


def test_every_promotion_keeps_the_three_aliases_right(registry: Aliases) -> None:
    registry.make_challenger(NAME, "1")
    assert read(registry).aliases == {"challenger": "1"}
    registry.make_champion(NAME, "1")
    assert read(registry).aliases == {"champion": "1"}
    registry.make_champion(NAME, "2")
    registry.make_challenger(NAME, "3")
    assert read(registry).aliases == {"champion": "2", "previous": "1", "challenger": "3"}
    registry.make_champion(NAME, "2")  # again, as where a step is repeated
    assert read(registry).aliases == {"champion": "2", "previous": "1", "challenger": "3"}
    assert not read(registry).moved_by_hand and read(registry).hold is None


def test_each_rollback_goes_one_version_further_back(registry: Aliases) -> None:
    for version in ("1", "2", "3"):
        registry.make_champion(NAME, version)
    assert registry.go_back(NAME) == "2"
    assert read(registry).aliases == {"champion": "2", "previous": "1"}
    assert registry.go_back(NAME) == "1"
    assert read(registry).aliases == {"champion": "1"}
    assert registry.go_back(NAME) is None
    assert not read(registry).moved_by_hand


def test_a_moved_alias_is_held_until_that_ends_and_one_of_the_program_is_not(registry: Aliases) -> None:
    registry.make_champion(NAME, "1")
    registry.make_champion(NAME, "2")
    found = by_hand(registry, "3")
    assert found.hold is not None and found.hold.by == IN_MLFLOW and found.chosen_by_a_person
    assert found.aliases == {"champion": "3", "previous": "2"}
    assert registry.notice_move(read(registry)) == read(registry)  # nothing new
    ended = registry.end_hold(NAME)
    assert ended == found.hold and read(registry).hold is None
    assert registry.end_hold(NAME) is None
    registry.make_champion(NAME, "4")
    assert registry.notice_move(read(registry)).hold is None


def test_a_first_champion_by_hand_is_a_persons_choice_where_the_rule_had_refused(registry: Aliases) -> None:
    registry.make_challenger(NAME, "1")
    assert by_hand(registry, "1").hold is not None


def test_a_registry_of_before_is_taken_as_it_is(registry: Aliases) -> None:
    """An installation that is upgraded has champions and no note of who chose them."""
    assert by_hand(registry, "2").hold is None
    assert by_hand(registry, "1").hold is not None


def test_a_crash_while_the_alias_moves_is_no_persons_doing(registry: Aliases, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.make_champion(NAME, "1")
    for step in ("set_registered_model_alias", "set_model_version_tag"):  # before the alias moves, and after
        with monkeypatch.context() as patch, pytest.raises(ConnectionError):
            patch.setattr(registry.client, step, cut_off)
            registry.make_champion(NAME, "2")
        assert registry.notice_move(read(registry)).hold is None


def cut_off(*_: object) -> None:
    raise ConnectionError


def test_a_previous_version_that_was_deleted_is_nothing_to_go_back_to(registry: Aliases) -> None:
    for version in ("1", "2", "3"):
        registry.make_champion(NAME, version)
    registry.client.delete_model_version(NAME, "1")
    assert registry.go_back(NAME) == "2"
    assert "previous" not in read(registry).aliases
    assert registry.model_aliases("acme.nothing") is None


def test_pages_hold_every_model(registry: Aliases) -> None:
    registry.client.create_registered_model("acme.collaborative")
    page, token = registry.page_of_aliases()
    assert [each.name for each in page] == ["acme.collaborative", NAME] and token is None
