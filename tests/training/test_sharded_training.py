"""Two processes of `torchrun` train `deep-learning` together: what each holds, and that one alone gets the same."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.training.catalogue import N_ITEMS, build_dataset
from tests.training.test_command_line import frame_of, items_of
from training.cli import app
from training.evaluation.kept_models import KEY_FILE
from training.models.deep_learning.model import DeepLearning
from training.models.deep_learning.network import N_TYPES
from training.models.deep_learning.sharding import check_divisible, most_processes
from training.models.registry import load_model

pytestmark = pytest.mark.fit

ROOT = Path(__file__).parents[2]
EXACT = "{dimensions: 16, max_length: 20, epochs: 4, refit_epochs: 1, batch_size: 16, dropout: 0, id_dropout: 0}"
"""Without draws of dropout, so that one process and two compute the same but for rounding."""


def torchrun(processes: int, module: str, *arguments: str) -> str:
    """What they wrote on standard error, where all ended well."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    done = subprocess.run(
        [sys.executable, *launcher, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "LOG_LEVEL": "INFO", "LOG_FORMAT": "json", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5_000:]
    return done.stderr


def lines(errors: str, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in errors.splitlines() if line.startswith("{")]
    return [each for each in found if each["event"] == event]


class Evaluated:
    """What `python -m training evaluate` left in a folder."""

    def __init__(self, folder: Path, errors: str = "") -> None:
        self.errors = errors
        rows = json.loads((folder / "out.json").read_text())["results"]
        self.figures = {row["model"]: row["metrics"] for row in rows if row["segment"] == "all"}
        (key,) = folder.glob(f"kept/deep-learning-*/{KEY_FILE}")
        model = load_model(key.parent / "evaluated")
        assert isinstance(model, DeepLearning)
        self.model = model


def arguments(world: Path, folder: Path) -> list[str]:
    return [
        *("evaluate", "--models", "popularity,deep-learning", "--protocol", "leave-one-out", "--threads", "1"),
        *("--max-seconds", "1000000"),  # time must not set the rate, however busy the machine
        *("--interactions", str(world / "interactions.csv"), "--items", str(world / "items.parquet")),
        *("--configs", str(world), "--out", str(folder / "out.json"), "--keep", str(folder / "kept")),
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    frame_of(build_dataset()).to_csv(folder / "interactions.csv", index=False)
    items_of(build_dataset()).to_parquet(folder / "items.parquet")
    (folder / "deep-learning.yaml").write_text(EXACT)
    return folder


@pytest.fixture(scope="module")
def one(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "1")
        result = CliRunner().invoke(app, arguments(world, folder))
    assert result.exit_code == 0, result.output
    return Evaluated(folder)


@pytest.fixture(scope="module")
def two(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder = tmp_path_factory.mktemp("two")
    return Evaluated(folder, torchrun(2, "training", *arguments(world, folder)))


def test_each_process_holds_half_the_rows_of_both_tables(two: Evaluated) -> None:
    placed = lines(two.errors, "sharded")
    fits = 3  # with early stopping, over the held-out events, before the test window
    assert sorted(each["rank"] for each in placed) == [0] * fits + [1] * fits
    for each in placed:
        assert each["holder"] == "ShardedEmbeddingCollection" and each["of"] == 2
        assert each["rows"] == {"item": [N_ITEMS // 2, 16], "event_type": [N_TYPES // 2, 16]}


def test_two_processes_reach_what_one_reaches(one: Evaluated, two: Evaluated) -> None:
    for name in ("ndcg@10", "recall@10", "auc"):
        ours, theirs = (run.figures["deep-learning"][name]["mean"] for run in (two, one))
        assert ours == pytest.approx(theirs, abs=0.01), name
    assert two.figures["deep-learning"]["ndcg@10"]["mean"] > 1.5 * two.figures["popularity"]["ndcg@10"]["mean"]


def test_both_go_through_the_same_losses_and_validation(one: Evaluated, two: Evaluated) -> None:
    for curve in ("losses", "validation", "refit_losses"):
        assert two.model.training[curve] == pytest.approx(one.model.training[curve], rel=1e-3), curve
    epochs = lines(two.errors, "epoch")
    first, second = ([each["ndcg"] for each in epochs if each["process"] == rank] for rank in (0, 1))
    assert first == second and len(first[0]) == 1  # one figure decides for both when to stop


def test_what_is_kept_is_a_whole_model_that_scores_like_one_trained_alone(one: Evaluated, two: Evaluated) -> None:
    histories = build_dataset().histories()
    alone, together = (run.model.score(histories) for run in (one, two))
    assert together.shape == (len(histories), N_ITEMS)
    assert np.abs(together - alone).max() < 0.01 * alone.std()


def test_the_seed_decides_and_a_fit_that_its_caller_ended_goes_on_from_the_checkpoints_of_both(tmp_path: Path) -> None:
    errors = torchrun(2, "tests.training.sharded_fits", str(tmp_path / "found.npz"))
    found = np.load(tmp_path / "found.npz")
    assert found["first"].shape[1] == N_ITEMS - 1  # an odd number: one process holds a row more than the other
    assert found["ended_after"].tolist() == [1]
    assert {each["process"] for each in lines(errors, "resumes from a checkpoint")} == {0, 1}
    assert np.array_equal(found["resumed"], found["first"])
    assert not np.allclose(found["first"], found["other_seed"], atol=0.01)
    agreement = np.corrcoef(found["sampled"].ravel(), found["first"].ravel())[0, 1]
    assert agreement > 0.8


def test_what_cannot_be_divided_is_refused() -> None:
    check_divisible(5, 2, "cpu")
    with pytest.raises(ValueError, match="4 items are too few to be divided among 3 processes"):
        check_divisible(4, 3, "cpu")
    with pytest.raises(ValueError, match="CPUs only"):
        check_divisible(120, 2, "cuda")
    assert [most_processes(n_items, 8) for n_items in (1, 2, 9, 120)] == [1, 2, 5, 8]
