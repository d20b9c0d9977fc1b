"""A search for hyper-parameters is the same on one machine and on several."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.snapshot_files import snapshot_folder
from feature_store.snapshots import build_snapshot
from pipelines.compute.local import LocalCompute
from pipelines.compute.port import Compute
from pipelines.defs.tuning.tasks import SearchTasks, SplitRecipe, split_of
from tests.compute.conftest import Machines
from tests.feature_store.lakes import TENANT, interaction, write_lake
from training.models.contract import RuntimeOptions
from training.models.registry import family_class
from training.tuning import halving
from training.tuning.halving import search_by_halving
from training.tuning.results import StudyResult
from training.tuning.search_space import load_space

pytestmark = [pytest.mark.service, pytest.mark.fit]

FAMILY = "item-knn"
OPTIONS = RuntimeOptions(threads=1, seed=3)


@pytest.fixture
def recipe(tmp_path: Path) -> SplitRecipe:
    """A snapshot of 40 users who mostly stay within one of two groups of items."""
    rng = np.random.default_rng(0)
    events = []
    for number in range(900):
        user = int(rng.integers(40))
        item = int(rng.integers(10)) + 10 * (user % 2 if rng.random() < 0.8 else 1 - user % 2)
        events.append(interaction(number, f"user-{user}", f"item-{item}", 60 * number))
    write_lake(tmp_path / "lake", events, {f"item-{number}": "{}" for number in range(20)})
    made = build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    return SplitRecipe(
        snapshot_folder(tmp_path / "features", TENANT, made.snapshot_id), 200, "none", 1000, OPTIONS.seed
    )


def searched(compute: Compute, recipe: SplitRecipe) -> StudyResult:
    family = family_class(FAMILY)
    return search_by_halving(
        family,
        split_of(recipe),
        load_space(FAMILY),
        family.Config(),
        options=OPTIONS,
        minutes=10,
        trials=7,
        tasks=SearchTasks(compute, recipe, FAMILY, OPTIONS, batch=3),
    )


def test_a_search_on_several_machines_has_the_trials_of_one(
    machines: Machines, recipe: SplitRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halving, "MIN_EVENTS", 200)  # two rungs of users
    here, there = searched(LocalCompute(), recipe), searched(machines.compute, recipe)
    assert [trial.share for trial in here.trials] == [1 / 3] * 7 + [1.0] * (len(here.trials) - 7)
    assert len(here.trials) > 8
    for one, other in zip(here.trials, there.trials, strict=True):
        assert (one.number, one.config, one.value, one.state) == (other.number, other.config, other.value, other.state)
        assert one.per_query is not None and other.per_query is not None
        assert np.array_equal(one.per_query, other.per_query)
    assert (here.best, here.config, here.value, here.improvement) == (
        there.best,
        there.config,
        there.value,
        there.improvement,
    )
