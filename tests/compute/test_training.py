"""The training step makes the same model in a group on one machine and on several, one of which dies meanwhile."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from configs.compute import ComputeSettings
from configs.pipelines import PipelineSettings
from feature_store.range_plan import RangeLimits
from feature_store.snapshot_ranges import one_by_one
from feature_store.snapshots import build_snapshot
from pipelines.compute.port import Compute
from pipelines.compute.ray_cluster import RayCompute
from pipelines.defs.training.steps import TrainingRun, train
from pipelines.resources import Installation
from tests.compute.conftest import Machines
from tests.compute.functions import fit_held_once
from tests.feature_store.lakes import TENANT, interaction, write_lake
from tests.fixtures.platform import wait_until
from tests.pipelines.conftest import connection, installation  # noqa: F401 - they are fixtures
from tests.training.catalogue import DAY, build_dataset
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.distributed import fit_in_group
from training.models.deep_learning.model import DeepLearning
from training.train import TrainedModel

pytestmark = pytest.mark.service

FAMILY = "deep-learning"
CONFIG = DeepLearningConfig(dimensions=16, max_length=20, epochs=3, refit_epochs=0, batch_size=16, dropout=0.2)
"""One run of the loop, with draws of dropout, so that a model that went on from other numbers is another one."""


@dataclass(frozen=True)
class Dying:
    """The cluster, whose second machine is killed while processes train, and replaced."""

    compute: Compute
    machines: Machines

    def train(self, function: Callable[[Path], float], ranks: int, folder: Path) -> float:
        assert isinstance(self.compute, RayCompute)
        assert function is fit_in_group
        marks = folder.parent
        (marks / "dies").write_text(self.machines.second.node_id)

        def waits() -> bool:
            return (marks / "held").exists() and any("2" in path.read_text() for path in marks.glob("rank-*"))

        with ThreadPoolExecutor(1) as executor:
            trains = executor.submit(self.compute.train, fit_held_once, ranks, folder)
            wait_until("a process that waits, and one that is an epoch ahead", waits, 300)
            self.machines.kill_second()
            self.machines.replace_second()  # in this thread, since Ray handles signals
            return trains.result()


@dataclass(frozen=True)
class DyingInstallation(Installation):
    machines: Machines | None = None

    def compute(self) -> Any:
        return Dying(super().compute(), self.machines)


def snapshot(root: Path) -> dict[str, Any]:
    """The small world of the models' tests, in a lake, as a feature snapshot."""
    world = build_dataset()
    events = zip(world.interactions.users, world.interactions.items, world.interactions.timestamps, strict=True)
    rows = [
        interaction(number, f"user-{user:03}", f"film-{item}", minutes=int(at) * 1440 // DAY)
        for number, (user, item, at) in enumerate(events)
    ]
    items = {
        str(item): json.dumps(metadata) for item, metadata in zip(world.items.ids, world.items.metadata, strict=True)
    }
    write_lake(root / "lake", rows, items)
    limits = RangeLimits(10_000, 64 << 20)
    return vars(build_snapshot(root / "lake", root / "features", TENANT, limits, one_by_one)) | {"exclude_seen": "all"}


def trained(installation: Installation, snapshot: dict[str, Any]) -> TrainedModel:  # noqa: F811
    model, _ = train(TrainingRun.on(installation, snapshot), FAMILY, {}, {}, CONFIG)
    return model


def test_a_training_goes_on_from_its_checkpoints_when_a_machine_dies(
    installation: Installation,  # noqa: F811
    connection: psycopg.Connection[Any],  # noqa: F811
    two: Machines,
) -> None:
    pipeline = PipelineSettings(train_seconds=1e6, train_processes=2, train_threads=1)  # time must not set the rate
    here = replace(installation, pipeline=pipeline)
    made = snapshot(here.paths.root)
    expected = trained(here, made)
    cluster = ComputeSettings(engine="ray", ray_address=two.address, token_file=two.token_file)
    fields = {**vars(here), "engine": cluster}
    found = trained(DyingInstallation(**fields, machines=two), made)

    fits = here.paths.fits
    finished = sorted((fits / f"rank-{rank}").read_text().split() for rank in (0, 1))
    # The first attempt ended in the second epoch of one process; the second one began after the first epoch of both.
    assert finished == [["1", "2", "2", "3"], ["1", "2", "3"]]
    assert {path.name for path in fits.iterdir()} == {"dies", "held", "rank-0", "rank-1"}  # no event of a user stays
    assert isinstance(expected.model, DeepLearning) and isinstance(found.model, DeepLearning)
    assert found.model.training == expected.model.training
    assert len(found.model.training["losses"]) == 3
    histories = build_dataset().histories()
    assert np.array_equal(found.model.score(histories), expected.model.score(histories))
    assert found.report.metric("ndcg@10") == expected.report.metric("ndcg@10")
    assert (
        min(one.usage.cpu_seconds for one in (found, expected)) > 1
    )  # what the processes of the group took is counted
