"""Where hyper-parameters come from: the family's defaults for the data, a folder's files, explicit keys."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.config import config_for, load_config
from training.data.dataset import Dataset, from_events
from training.data.profile import DataProfile, preferred_number
from training.models.registry import families


def dataset() -> Dataset:
    """Ann takes a, a and b within two days, Bob takes c twice at one moment; nobody takes d."""
    day = 86_400_000_000
    events = pd.DataFrame(
        {"user_id": list("aaabb"), "item_id": list("aabcc"), "timestamp": [day, 2 * day, 3 * day, day, day]}
    )
    items = pd.DataFrame({"item_id": list("abcd"), "metadata": [{"kind": "toy"}, None, None, None]})
    return from_events(events, items)


def test_a_profile_counts_what_a_data_set_is_like() -> None:
    found = DataProfile.of(dataset())
    assert (found.n_users, found.n_items, found.n_events) == (2, 4, 5)
    assert (found.events_per_user, found.median_events_per_user) == (2.5, 2.5)
    assert found.events_per_item == pytest.approx(5 / 3)
    assert found.repeat_share == pytest.approx(2 / 5)
    assert found.simultaneous_share == pytest.approx(1 / 3)
    assert found.cold_item_share == pytest.approx(1 / 4)
    assert found.span_days == 2
    assert found.has_metadata


def test_positions_have_no_days_and_an_empty_data_set_has_a_profile() -> None:
    whole = dataset()
    events = replace(whole.interactions, timestamps=np.arange(5))
    assert DataProfile.of(replace(whole, interactions=events)).span_days == 0
    empty = DataProfile.of(whole.where(np.zeros(5, dtype=bool)))
    assert (empty.n_events, empty.events_per_user, empty.cold_item_share) == (0, 0, 1)


def test_values_that_follow_the_data_are_rounded_so_that_a_few_events_change_nothing() -> None:
    assert [preferred_number(value, 1, 1_000) for value in (0.2, 1.4, 1.5, 24, 28, 34, 80, 1e6)] == [
        *(1, 1, 2, 20, 20, 50, 100, 1_000)
    ]


@pytest.mark.parametrize("family", families())
def test_every_family_has_a_default_for_data_and_for_none(family: str) -> None:
    for data in (dataset(), dataset().where(np.zeros(5, dtype=bool))):
        config = config_for(family, DataProfile.of(data))
        assert type(config).model_validate(config.model_dump(mode="json")) == config


def test_explicit_keys_win_over_a_folder_and_a_folder_over_the_defaults(tmp_path: Path) -> None:
    profile = DataProfile.of(dataset())
    (tmp_path / "collaborative.yaml").write_text("memories: [3.0]\nhalf_life: 7.0\n")  # the first key's earlier name
    found = config_for("collaborative", profile, {"half_life": 9.0}, tmp_path)
    defaults = config_for("collaborative", profile)
    assert found == defaults.model_copy(update={"decay_half_lives": (3.0,), "half_life": 9.0})
    assert config_for("item-knn", profile, folder=tmp_path) == load_config("item-knn")
    with pytest.raises(ValueError, match="no_such_key"):
        config_for("collaborative", profile, {"no_such_key": 1})
