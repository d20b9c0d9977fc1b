"""The default hyper-parameters of the transformer: within bounds, monotone, and what was found by hand where it was."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import config_for
from training.data.profile import DataProfile
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.model import DeepLearning


def profile(
    n_users: int, n_items: int, events_per_user: float, repeat_share: float = 0.0, days: float = 0
) -> DataProfile:
    events = int(n_users * events_per_user)
    mean = events / max(1, n_users)
    return DataProfile(
        n_users=n_users,
        n_items=n_items,
        n_events=events,
        events_per_user=mean,
        median_events_per_user=mean,
        events_per_item=events / max(1, n_items),
        repeat_share=repeat_share,
        simultaneous_share=0.0,
        cold_item_share=0.0,
        span_days=days,
        has_metadata=True,
    )


PROFILES = st.builds(
    profile,
    st.integers(0, 1_000_000),
    st.integers(0, 1_000_000),
    st.floats(1, 2_000),
    st.floats(0, 1),
    st.floats(0, 5_000),
)


def size(config: DeepLearningConfig) -> tuple[int, int, int]:
    return config.dimensions, config.blocks, config.max_length


@given(PROFILES)
@settings(deadline=None)
def test_defaults_are_within_the_bounds_that_two_cores_can_fit(found: DataProfile) -> None:
    config = DeepLearning.default_config(found)
    assert size(config) >= (64, 2, 100) and all(a <= b for a, b in zip(size(config), (128, 4, 200), strict=True))
    assert config.dimensions % config.heads == 0
    assert 16 <= config.batch_size <= 64
    assert 0.15 <= config.dropout <= 0.35 and 0 <= config.id_dropout <= 0.1
    assert 1 <= config.refit_epochs <= 4 and 1 <= config.epochs <= 30
    assert config.refit_learning_rate < config.learning_rate <= 0.002
    assert found.n_items <= config.candidates or 2_048 <= config.candidates <= 8_192
    assert config.horizon_days is None or found.repeat_share >= 0.2


@given(PROFILES, st.floats(1, 20))
@settings(deadline=None)
def test_more_data_never_give_a_smaller_network_and_more_repeats_never_a_larger_one(
    found: DataProfile, factor: float
) -> None:
    more = replace(found, n_users=int(found.n_users * factor), n_events=int(found.n_events * factor))
    denser = replace(more, events_per_user=found.events_per_user * factor)
    config, larger, longer = (DeepLearning.default_config(one) for one in (found, more, denser))
    repeated = DeepLearning.default_config(replace(found, repeat_share=1 - (1 - found.repeat_share) / factor))
    for one, other in ((config, larger), (larger, longer), (repeated, config)):
        assert all(a <= b for a, b in zip(size(one), size(other), strict=True))
    assert config.weight_decay >= larger.weight_decay and config.refit_epochs >= larger.refit_epochs


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (profile(19_412, 11_924, 6.63), (64, 2, 100, 0.15, 64, 2e-3, 1.0, 0.99, 20, 4)),
        (profile(943, 1_682, 104), (64, 2, 100, 0.3, 32, 2e-3, 1.0, 0.99, 30, 2)),
        (profile(6_040, 3_416, 163.5), (128, 4, 200, 0.2, 32, 1e-3, 0.1, 0.997, 30, 1)),
    ],
    ids=["amazon-toys", "movielens-100k", "ml-1m"],
)
def test_defaults_are_what_was_found_by_hand(found: DataProfile, expected: tuple[float, ...]) -> None:
    config = config_for("deep-learning", found)
    assert isinstance(config, DeepLearningConfig)
    assert expected == (
        *size(config),
        config.dropout,
        config.batch_size,
        config.learning_rate,
        config.weight_decay,
        config.weight_averaging,
        config.epochs,
        config.refit_epochs,
    )
