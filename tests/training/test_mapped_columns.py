"""Mapped columns give what columns in memory give, and nothing of them is left when their snapshot is deleted."""

import mmap
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from feature_store.snapshot_files import snapshot_folder
from feature_store.snapshots import build_snapshot, prune_snapshots
from tests.feature_store.lakes import TENANT, interaction, write_lake
from training.data import mapped_columns
from training.data.dataset import Dataset, load_snapshot
from training.data.mapped_columns import map_columns, sliced, write_columns
from training.data.splits import last_moments, leave_one_out_split, temporal_split
from training.models.contract import RuntimeOptions
from training.models.deep_learning.config import DeepLearningConfig
from training.models.deep_learning.distributed import NetworkFit
from training.models.deep_learning.network import Network
from training.models.deep_learning.shared_data import FitData, shared_data
from training.models.item_knn import ItemKnn


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are written in many parts, although there are few events."""
    monkeypatch.setattr(mapped_columns, "_BATCH", 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A snapshot of 12 users with up to 14 events on 9 items."""
    rng = np.random.default_rng(3)
    rows = [
        interaction(number, f"user-{rng.integers(12)}", f"item-{rng.integers(9)}", int(rng.integers(40)))
        for number in range(100)
    ]
    write_lake(tmp_path / "lake", rows, {f"item-{number}": "{}" for number in range(9)})
    manifest = build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    return snapshot_folder(tmp_path / "features", TENANT, manifest.snapshot_id)


def is_mapped(array: np.ndarray) -> bool:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return isinstance(array, mmap.mmap)


def files_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_columns_splits_and_scores_are_those_of_a_data_set_in_memory(folder: Path) -> None:
    held, mapped = load_snapshot(folder), load_snapshot(folder, mapped_from=1)
    for ours, theirs in zip(mapped.interactions.columns, held.interactions.columns, strict=True):
        assert is_mapped(ours) and not is_mapped(theirs)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    for split in (temporal_split, leave_one_out_split):
        ours, theirs = split(mapped), split(held)
        assert ours.hash == theirs.hash
        assert is_mapped(ours.train.interactions.items) and is_mapped(ours.before_test.interactions.timestamps)
    past, queries = last_moments(mapped, "all", 5, seed=0)
    assert is_mapped(past.interactions.users) and np.array_equal(
        queries.users, last_moments(held, "all", 5, 0)[1].users
    )
    scores = [ItemKnn().fit(data, RuntimeOptions()).score(held.histories()) for data in (mapped, held)]
    assert np.array_equal(scores[0], scores[1])


def test_columns_are_written_once_and_selections_have_no_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(folder: Path, *arguments: object) -> None:
        written.append(folder)
        write_columns(folder, *arguments)

    monkeypatch.setattr(mapped_columns, "write_columns", write)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: load_snapshot(folder, mapped_from=1), range(4)))
    assert len(written) == 1 and len({one.interactions.timestamps.tobytes() for one in found}) == 1
    before = files_of(folder.parent)
    kept = found[0].where(found[0].interactions.items < 5)
    assert is_mapped(kept.interactions.items) and len(kept.interactions) < len(found[0].interactions)
    assert files_of(folder.parent) == before


def test_an_erasure_leaves_no_column_behind_and_none_is_made_of_a_deleted_snapshot(folder: Path) -> None:
    dataset = load_snapshot(folder, mapped_from=1)
    items = dataset.interactions.items.tolist()
    assert f"{folder.name}/columns/user.npy" in files_of(folder.parent)
    assert prune_snapshots(folder.parents[1], TENANT, keep=0) == [folder.name]
    assert files_of(folder.parent) == {"positions.parquet"}
    assert dataset.interactions.items.tolist() == items  # a run that has begun can end
    with pytest.raises(FileNotFoundError):
        mapped_columns.snapshot_columns(folder)
    assert not folder.exists()


def test_what_a_killed_writer_left_goes_with_the_next_snapshot(folder: Path, tmp_path: Path) -> None:
    left = folder / ".tmp-0123456789abcdef"
    left.mkdir()
    (left / "user.npy").write_bytes(b"half of it")
    build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    assert not left.exists() and load_snapshot(folder, mapped_from=1).n_items == 9


def test_a_column_that_ends_early_is_refused(tmp_path: Path, folder: Path) -> None:
    columns = load_snapshot(folder).interactions.columns
    write_columns(tmp_path, len(columns[0]), sliced(columns))
    assert all(np.array_equal(*pair) for pair in zip(map_columns(tmp_path), columns, strict=True))
    with pytest.raises(ValueError, match=f"{len(columns[0])} events were written in place of 1000"):
        write_columns(tmp_path, 1000, sliced(columns))


def fit_of(data: Dataset, content: np.ndarray) -> NetworkFit:
    config = DeepLearningConfig(dimensions=8, heads=2)
    network = Network(content.shape[1], config)
    return NetworkFit(network, FitData(data, content, content), config, RuntimeOptions(), "fit", 1, 1e-3, 1.0)


def test_processes_of_a_fit_open_its_data_by_path(folder: Path) -> None:
    """What is sent has the same size for one item as for 100,000, and no file outlives the fit."""
    dataset, sizes = load_snapshot(folder), []
    before = files_of(folder.parent)
    for content in (np.ones((9, 8), np.float32), np.ones((100_000, 8), np.float32)):
        fit = fit_of(dataset, content)
        with shared_data(fit.data.open()) as shared:
            sizes.append(len(pickle.dumps(shared)))
            opened = shared.open()
        assert files_of(folder.parent) == before
        assert all(map(is_mapped, (*opened.dataset.interactions.columns, opened.content, opened.ids)))
        for ours, theirs in zip(opened.dataset.interactions.columns, dataset.interactions.columns, strict=True):
            assert np.array_equal(ours, theirs)
        assert np.array_equal(opened.content, content) and opened.dataset.n_users == dataset.n_users
    assert sizes[0] == sizes[1] < 2_000
