"""Feature snapshots are the same on one machine and on several, one of which dies."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.range_plan import RangeLimits
from feature_store.snapshot_files import snapshot_folder, snapshot_parts
from feature_store.snapshot_ranges import MapTasks, build_range, one_by_one
from feature_store.snapshots import build_snapshot
from tests.compute.conftest import Machines
from tests.feature_store.lakes import TENANT
from tests.feature_store.test_snapshot_ranges import skewed

pytestmark = pytest.mark.service


def built(root: Path, name: str, events: int, run: MapTasks) -> tuple[str, pa.Table]:
    manifest = build_snapshot(root / "lake", root / name, TENANT, RangeLimits(events, 64 << 20), run)
    parts = snapshot_parts(snapshot_folder(root / name, TENANT, manifest.snapshot_id))
    return manifest.snapshot_id, pa.concat_tables(map(pq.read_table, parts)).combine_chunks()


def test_ranges_on_several_machines_give_the_snapshot_of_one_step(two: Machines, tmp_path: Path) -> None:
    skewed(tmp_path)
    snapshot_id, events = built(tmp_path, "here", 1000, one_by_one)
    killed = []

    def kill_while_built(
        function: Callable[[Any], Any], tasks: Sequence[Any], *, memory_bytes: int | None = None
    ) -> Iterator[Any]:
        def kill_once(done: int, _of: int) -> None:
            if function is build_range and done == 2 and not killed:
                two.kill_second()
                killed.append(done)

        return two.compute.map(function, tasks, on_progress=kill_once)

    for size in (13, 44):
        found_id, found = built(tmp_path, f"ranges-{size}", size, kill_while_built)
        assert found_id == snapshot_id
        assert found.equals(events)
    assert killed == [2]
