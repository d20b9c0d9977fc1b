"""What a group of processes reads is what the run that starts them has."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tests.training.catalogue import build_dataset
from training.models.contract import RuntimeOptions
from training.models.deep_learning.checkpoint import Checkpoint
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.network import Network
from training.models.deep_learning.network_fit import (
    FitResult,
    NetworkFit,
    read_fit,
    read_result,
    write_fit,
    write_result,
)
from training.models.deep_learning.shared_data import FitData
from training.models.deep_learning.stages import hold_out

CONFIG = DeepLearningConfig(dimensions=16, max_length=20, learning_rate=0.1 + 0.2)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    dataset = build_dataset()
    holdout = hold_out(dataset, CONFIG, 50).test
    content = np.random.default_rng(0).normal(size=(dataset.n_items, 7)).astype(np.float32)
    ids = np.random.default_rng(1).normal(size=(dataset.n_items, 16)).astype(np.float32)
    network = Network(7, CONFIG)
    network.types.requires_grad_(False)
    options = RuntimeOptions(seed=3, threads=2)
    run = NetworkFit(network, FitData(dataset, content, ids), CONFIG, options, "held-out", 4, 0.1 + 0.2, 1e6, holdout)
    before = torch.get_rng_state()
    write_fit(run, tmp_path)

    found, random_state = read_fit(tmp_path)
    assert torch.equal(random_state, before)
    assert (found.config, found.stage, found.epochs) == (CONFIG, "held-out", 4)
    assert (found.learning_rate, found.seconds) == (0.1 + 0.2, 1e6)
    assert found.options == RuntimeOptions(seed=3, threads=1, workdir=tmp_path)
    data = found.data.open()
    assert all(map(np.array_equal, data.dataset.interactions.columns, dataset.interactions.columns))
    assert (data.dataset.n_users, data.dataset.n_items) == (dataset.n_users, dataset.n_items)
    assert data.ids is not None and np.array_equal(data.ids, ids) and np.array_equal(data.content, content)
    learned = [(name, each.requires_grad) for name, each in network.named_parameters()]
    assert [(name, each.requires_grad) for name, each in found.network.named_parameters()] == learned
    assert all(torch.equal(each, network.state_dict()[name]) for name, each in found.network.state_dict().items())
    assert found.holdout is not None and len(found.holdout) == len(holdout) == 50
    for name in ("items", "types", "weights", "timestamps", "offsets"):
        ours, theirs = getattr(found.holdout.histories, name), getattr(holdout.histories, name)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    for ours, theirs in ((found.holdout.targets, holdout.targets), (found.holdout.masked, holdout.masked)):
        assert ours.dtype == theirs.dtype and np.array_equal(ours.toarray(), theirs.toarray())

    (other := tmp_path / "other").mkdir()
    write_fit(replace(run, data=FitData(dataset, content, None), holdout=None), other)
    plain, _ = read_fit(other)
    assert plain.data.open().ids is None and plain.holdout is None


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    network = Network(7, CONFIG)
    ids = np.arange(48, dtype=np.float32).reshape(3, 16)
    progress = {"losses": [0.1 + 0.2], "validation": [], "best_epoch": 0, "stopped": ""}
    write_result(FitResult(network.state_dict(), ids, progress, torch.get_rng_state()), tmp_path)
    found = read_result(tmp_path)
    assert found.progress == progress
    assert np.array_equal(found.ids, ids)
    assert torch.equal(found.random_state, torch.get_rng_state())
    assert all(torch.equal(found.network[name], each) for name, each in network.state_dict().items())


def test_of_several_processes_each_keeps_the_checkpoint_before_the_last_one(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "fit.safetensors", "one", keeps_two=True)
    assert checkpoint.newest_step() == 0 and checkpoint.read() is None
    for step in (3, 6, 9, 9):  # the last step again, after another process had gone on from the one before
        checkpoint.write({"weights": torch.full((2,), float(step))}, {"step": step})
    assert checkpoint.newest_step() == 9
    kept = {step: checkpoint.read(step) for step in (3, 6, 9)}
    assert kept[3] is None
    assert {step: found[0]["weights"].tolist() for step, found in kept.items() if found} == {6: [6, 6], 9: [9, 9]}
    (tmp_path / "fit.safetensors").unlink()  # killed between the two renames
    assert checkpoint.newest_step() == 6
    assert Checkpoint(tmp_path / "fit.safetensors", "two", keeps_two=True).newest_step() == 0
