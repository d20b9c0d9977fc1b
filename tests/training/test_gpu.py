"""What computes on a GPU. These tests are deselected without CUDA; no machine with a GPU has run them yet."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.catalogue import build_dataset
from training.data.splits import temporal_split
from training.evaluation.rankings import rank_queries
from training.models.contract import RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.model import DeepLearning

pytestmark = [pytest.mark.gpu, pytest.mark.fit]

ROOT = Path(__file__).parents[2]
CONFIG = DeepLearningConfig(
    dimensions=16, max_length=20, epochs=4, refit_epochs=1, batch_size=16, dropout=0, id_dropout=0, precision="float32"
)
"""Without draws of dropout, so that a GPU and a processor compute the same but for rounding."""
GROUP = """
import os
import torch
import torch.distributed as dist
from training.process_group import join_process_group

device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
torch.cuda.set_device(device)
join_process_group("nccl")
value = torch.tensor([dist.get_rank() + 1.0], device=device)
dist.all_reduce(value)
print("sum", int(value))
dist.destroy_process_group()
"""


def test_deep_learning_learns_on_a_gpu_what_it_learns_on_a_processor() -> None:
    split = temporal_split(build_dataset())
    options = RuntimeOptions(threads=1, seed=1, max_seconds=1e6)
    here = DeepLearning(CONFIG).fit(split.train, options)
    there = DeepLearning(CONFIG).fit(split.train, replace(options, device="cuda"))
    histories = split.train.histories()
    scores = here.score(histories), there.score(histories)
    assert np.isfinite(scores[1]).all()
    assert np.corrcoef(scores[0].ravel(), scores[1].ravel())[0, 1] > 0.95
    reached = [rank_queries(model, split.validation).per_user["ndcg@10"].mean() for model in (here, there)]
    assert reached[1] == pytest.approx(reached[0], abs=0.05)


def test_processes_of_all_gpus_meet_over_nccl(tmp_path: Path) -> None:
    import torch

    script = tmp_path / "group.py"
    script.write_text(GROUP)
    n_gpus = torch.cuda.device_count()
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_gpus))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, str(script)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5_000:]
    assert done.stdout.count(f"sum {n_gpus * (n_gpus + 1) // 2}") == n_gpus
