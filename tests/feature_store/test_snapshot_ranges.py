"""Snapshots in ranges of users are those of one query over the whole lake, whatever the ranges."""

import hashlib
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.files import unfinished_folder
from configs.storage import open_storage
from feature_store import columns as c
from feature_store.interaction_types import EVENT_WEIGHT_SQL, TYPE_CODE_SQL
from feature_store.range_plan import RangeLimits
from feature_store.schemas import SNAPSHOT_INTERACTIONS
from feature_store.snapshot_files import SnapshotManifest, snapshot_folder, snapshot_parts
from feature_store.snapshots import build_snapshot, prune_snapshots
from pipelines.compute.local import LocalCompute
from tests.feature_store.lakes import START, TENANT, interaction, write_lake

CATALOGUE = {"x": '{"title": "X"}', "y": "{}", "z": "{}"}
MEMORY = 64 << 20

ONE_QUERY = f"""
WITH accepted AS (
    SELECT * FROM read_parquet($files)
    QUALIFY row_number() OVER (PARTITION BY interaction_id ORDER BY ingested_at, user_id) = 1
), known AS (
    SELECT accepted.*, positions.item FROM accepted JOIN read_parquet($positions) AS positions USING (item_id)
    SEMI JOIN read_parquet($items) AS catalogue USING (item_id)
)
SELECT (dense_rank() OVER (ORDER BY user_id) - 1)::INTEGER AS "user", item, ({TYPE_CODE_SQL})::TINYINT AS type,
    {EVENT_WEIGHT_SQL}::REAL AS weight, epoch_us(timestamp) AS timestamp
FROM known ORDER BY "user", timestamp, item_id, interaction_id
"""
"""What the versions before built every snapshot with, in one process. Arrivals were never equal there."""


def build(root: Path, events: int) -> tuple[SnapshotManifest, pa.Table]:
    """A snapshot in ranges of about so many events, and its events."""
    features = root / f"features-{events}"
    manifest = build_snapshot(root / "lake", features, TENANT, RangeLimits(events, MEMORY), LocalCompute().map)
    assert not [path for path in features.rglob(".*") if path.is_dir()], "work folders are left"
    parts = snapshot_parts(snapshot_folder(features, TENANT, manifest.snapshot_id))
    return manifest, pa.concat_tables(map(pq.read_table, parts)).combine_chunks()


def by_one_query(root: Path) -> tuple[str, pa.Table]:
    """The snapshot's id and events by one query. There must be a snapshot of one range."""
    lake = write_lake(root / "lake")
    version, items = lake.items_file()
    folder = next((root / "features-1000").glob("*/*/manifest.json")).parent
    files = [str(file) for file in lake.interaction_files()]
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        parameters = {
            "files": files, "positions": str(folder.parent / "positions.parquet"), "items": str(items)
        }  # fmt: skip
        events = database.sql(ONE_QUERY, params=parameters).to_arrow_table().cast(SNAPSHOT_INTERACTIONS)
    columns = {name: hashlib.sha256(events[name].to_numpy().tobytes()).hexdigest() for name in events.column_names}
    if not events.num_rows:
        columns = {}
    content = f"{version} {items_hash(folder)} {' '.join(f'{name}:{columns[name]}' for name in sorted(columns))}"
    return hashlib.sha256(content.encode()).hexdigest()[:16], events


def items_hash(folder: Path) -> str:
    table = pq.read_table(folder / "items.parquet")
    hashes = {}
    for name in table.column_names:
        digest = hashlib.sha256()
        for value in table[name].to_pylist():
            if isinstance(value, str):
                digest.update(len(value.encode()).to_bytes(8, "little") + value.encode())
            else:
                digest.update(int(value).to_bytes(1 if isinstance(value, bool) else 4, "little"))
        hashes[name] = digest.hexdigest()
    return " ".join(f"{name}:{hashes[name]}" for name in sorted(hashes))


def assert_equal_for_all_ranges(root: Path, ranges: Sequence[int]) -> dict[int, SnapshotManifest]:
    manifests = {}
    for events in (1000, *ranges):
        manifests[events], table = build(root, events)
        expected_id, expected = by_one_query(root)
        assert table.equals(expected), f"ranges of {events} events"
        assert manifests[events].snapshot_id == expected_id
        assert (manifests[events].n_interactions, manifests[events].n_users) == (
            manifests[1000].n_interactions,
            manifests[1000].n_users,
        )
    return manifests


def row(number: int, user: str, item: str = "x", minutes: int = 0, **columns: Any) -> dict[str, Any]:
    """An interaction that arrives `number` seconds after the first, unless told otherwise."""
    return interaction(number, user, item, minutes, **{c.INGESTED_AT: START + timedelta(seconds=number)} | columns)


def skewed(root: Path) -> None:
    """14 users: one with half of the events, one without a known item, copies of ids within and across users."""
    events = [row(number, "heavy", "xyz"[number % 3], number % 4) for number in range(40)]
    events += [row(100 + number, f"user-{number % 12:02}", "xyz"[number % 3], number % 5) for number in range(36)]
    events += [row(200 + number, "of unknown items", "unknown", number) for number in range(6)]
    write_lake(root / "lake", events, CATALOGUE)
    later = START + timedelta(days=2)
    copies = [row(number, "zoe", "y", 9, **{c.INGESTED_AT: later}) for number in (0, 3, 101, 205)]
    copies += [row(300, "amy", "x"), row(300, "o'neil", "z", **{c.INGESTED_AT: later})]
    copies += [row(104, "user-04", "z", 7, **{c.INGESTED_AT: START - timedelta(days=1)})]
    write_lake(root / "lake", copies)


@pytest.mark.parametrize("tie", [False, True])
def test_ranges_give_the_snapshot_of_one_query(tmp_path: Path, tie: bool) -> None:
    skewed(tmp_path)
    if tie:  # copies that arrived at once: the first user by id counts
        at = {c.INGESTED_AT: START + timedelta(days=3)}
        write_lake(tmp_path / "lake", [row(400, user, "y", **at) for user in ("user-09", "amy", "zoe")])
    manifests = assert_equal_for_all_ranges(tmp_path, [44, 13, 5, 1])
    assert len(manifests[1000].parts) == 1
    assert len(manifests[44].parts) >= 2
    assert len(manifests[13].parts) >= 6
    assert len(manifests[1].parts) == manifests[1].n_users  # each user alone, and no file for users without events


def test_a_user_with_as_many_events_as_a_range_has_one_alone(tmp_path: Path) -> None:
    skewed(tmp_path)
    manifest, _ = build(tmp_path, 20)
    folder = snapshot_folder(tmp_path / "features-20", TENANT, manifest.snapshot_id)
    users = [set(pq.read_table(part)[c.USER].to_pylist()) for part in snapshot_parts(folder)]
    assert sum(map(len, users)) == len(set.union(*users)) == manifest.n_users
    heavy = max(range(len(users)), key=lambda number: pq.read_metadata(snapshot_parts(folder)[number]).num_rows)
    assert len(users[heavy]) == 1


def test_a_copy_for_another_user_that_came_later_is_refused(tmp_path: Path) -> None:
    later = {c.INGESTED_AT: START + timedelta(days=2)}
    write_lake(tmp_path / "lake", [row(1, "ann", "x"), row(2, "ben", "y")], CATALOGUE)
    write_lake(tmp_path / "lake", [row(1, "ben", "z", **later), row(2, "ann", "z", **later)])
    _, table = build(tmp_path, 1)
    assert [(event[c.USER], event[c.ITEM]) for event in table.to_pylist()] == [(0, 0), (1, 1)]


def test_a_lake_whose_items_are_all_unknown_has_the_same_empty_snapshot(tmp_path: Path) -> None:
    write_lake(tmp_path / "lake", [row(number, f"user-{number}", "unknown") for number in range(5)], CATALOGUE)
    manifests = assert_equal_for_all_ranges(tmp_path, [2, 1])
    assert {(each.n_users, each.n_interactions, each.first_timestamp) for each in manifests.values()} == {(0, 0, None)}


def test_an_erasure_deletes_what_a_killed_build_left(tmp_path: Path) -> None:
    skewed(tmp_path)
    storage = open_storage(tmp_path / "features-5" / f"tenant={TENANT}")
    work = unfinished_folder(storage.local(""))  # as a build makes it, which nobody deletes after it is killed
    shutil.copytree(tmp_path / "lake", work / "divided")
    prune_snapshots(tmp_path / "features-5", TENANT, keep=0)
    assert not work.exists()


def test_a_build_that_fails_leaves_no_file(tmp_path: Path) -> None:
    skewed(tmp_path)

    def third_task_fails(function: Any, tasks: Sequence[Any], *, memory_bytes: int | None = None) -> Any:
        for number, task in enumerate(tasks):
            if number == 2:
                raise OSError("no space left on device")
            yield function(task)

    with pytest.raises(OSError, match="no space"):
        build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT, RangeLimits(5, MEMORY), third_task_fails)
    files = [path.name for path in (tmp_path / "features").rglob("*") if path.is_file() and path.name != ".lock"]
    assert files == ["positions.parquet"]


EVENTS = st.tuples(
    st.integers(0, 12),  # the interaction
    st.sampled_from(["a", "b", "b'", "c c", "d", "é", "\U0001f600"]),
    st.sampled_from(["x", "y", "unknown"]),
    st.integers(0, 2),  # minutes
)


@settings(max_examples=6, deadline=None)
@given(st.lists(EVENTS, min_size=2, max_size=25), st.sampled_from([1, 2, 4]))
def test_any_lake_gives_the_snapshot_of_one_query(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, str, str, int]], size: int
) -> None:
    root = tmp_path_factory.mktemp("any")
    rows = [
        row(number, user, item, minutes, **{c.INGESTED_AT: START + timedelta(seconds=arrival)})
        for arrival, (number, user, item, minutes) in enumerate(events)
    ]
    write_lake(root / "lake", rows[: len(rows) // 2], CATALOGUE)
    write_lake(root / "lake", rows[len(rows) // 2 :])
    assert_equal_for_all_ranges(root, [size])
