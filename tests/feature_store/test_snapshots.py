"""Snapshots: what models train on, from lakes of a few rows."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.storage import open_storage
from feature_store import columns as c
from feature_store.interaction_types import TYPE_CODES, event_weights
from feature_store.lake import TenantLake
from feature_store.schemas import SNAPSHOT_INTERACTIONS, SNAPSHOT_ITEMS
from feature_store.snapshot_files import read_snapshot_manifest, snapshot_folder, snapshot_parts
from feature_store.snapshots import build_snapshot, prune_snapshots
from tests.feature_store.lakes import TENANT, interaction, write_lake
from tests.fixtures.folders import waits_for_folder_lock
from tests.fixtures.platform import wait_until

CATALOGUE = {"x": '{"title": "X"}', "y": "{}", "z": "{}"}


def built(tmp_path: Path) -> tuple[str, list[dict], list[dict]]:
    """The snapshot's id, its interactions and its items."""
    manifest = build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    folder = snapshot_folder(tmp_path / "features", TENANT, manifest.snapshot_id)
    assert read_snapshot_manifest(folder) == manifest
    interactions = pa.concat_tables(map(pq.read_table, snapshot_parts(folder)))
    items = pq.read_table(folder / "items.parquet")
    assert interactions.schema.equals(SNAPSHOT_INTERACTIONS)
    assert items.schema.equals(SNAPSHOT_ITEMS)
    return manifest.snapshot_id, interactions.to_pylist(), items.to_pylist()


def test_events_are_sorted_by_user_and_time_and_point_at_items(tmp_path: Path) -> None:
    events = [interaction(1, "ben", "z", 5), interaction(2, "ann", "y", 9), interaction(3, "ann", "x", 1)]
    write_lake(tmp_path / "lake", events, CATALOGUE)
    _, interactions, items = built(tmp_path)
    assert [(row[c.USER], items[row[c.ITEM]][c.ITEM_ID]) for row in interactions] == [(0, "x"), (0, "y"), (1, "z")]
    assert interactions[0][c.TIMESTAMP] == 1_704_067_260_000_000  # 2024-01-01T00:01Z in microseconds
    assert items[0] == {c.ITEM: 0, c.ITEM_ID: "x", c.METADATA: '{"title": "X"}', c.IS_ACTIVE: True}


def test_an_interaction_in_two_files_counts_once(tmp_path: Path) -> None:
    write_lake(tmp_path / "lake", [interaction(1, "ann", "x"), interaction(2, "ann", "y")], CATALOGUE)
    write_lake(tmp_path / "lake", [interaction(1, "ann", "x"), interaction(3, "ann", "x", 1)])
    assert len(built(tmp_path)[1]) == 3


def test_events_of_items_outside_the_catalogue_are_dropped(tmp_path: Path) -> None:
    write_lake(tmp_path / "lake", [interaction(1, "ann", "x"), interaction(2, "ben", "unknown")], CATALOGUE)
    _, interactions, _ = built(tmp_path)
    assert len(interactions) == 1
    assert {row[c.USER] for row in interactions} == {0}  # users stay dense


def test_no_user_id_is_in_any_file(tmp_path: Path) -> None:
    write_lake(tmp_path / "lake", [interaction(1, "ann-of-green-gables", "x")], CATALOGUE)
    built(tmp_path)
    files = [file for file in (tmp_path / "features").rglob("*") if file.is_file()]
    assert len(files) >= 4
    assert not any(b"ann-of-green-gables" in file.read_bytes() for file in files)
    assert not any(c.USER_ID in pq.read_schema(file).names for file in files if file.suffix == ".parquet")


def test_the_name_is_made_from_the_content(tmp_path: Path) -> None:
    events = [interaction(1, "ann", "x"), interaction(2, "ann", "y", 2)]
    write_lake(tmp_path / "lake", events, CATALOGUE)
    first, again = built(tmp_path)[0], built(tmp_path)[0]
    write_lake(tmp_path / "elsewhere" / "lake", reversed(events), CATALOGUE)
    assert first == again == built(tmp_path / "elsewhere")[0]
    write_lake(tmp_path / "lake", [interaction(3, "ann", "z", 3)])
    second = built(tmp_path)[0]
    write_lake(tmp_path / "lake", items=CATALOGUE | {"y": '{"title": "Y"}'}, version=2)
    assert len({first, second, built(tmp_path)[0]}) == 3


def test_an_item_keeps_its_position_when_others_come_and_go(tmp_path: Path) -> None:
    events = [interaction(1, "ann", "x"), interaction(2, "ann", "y", 1)]
    write_lake(tmp_path / "lake", events, {"x": '{"n": 1}', "y": "{}"})
    _, _, before = built(tmp_path)
    write_lake(tmp_path / "lake", items={"a": "{}", "y": "{}"}, version=2)  # x is deleted, a comes first by name
    _, interactions, after = built(tmp_path)
    assert [row[c.ITEM_ID] for row in before] == ["x", "y"]
    assert [(row[c.ITEM_ID], row[c.IS_ACTIVE], row[c.METADATA]) for row in after] == [
        ("x", False, "{}"),
        ("y", True, "{}"),
        ("a", True, "{}"),
    ]
    assert [row[c.ITEM] for row in interactions] == [1]  # the deleted item's event is gone


def test_snapshots_tell_whether_their_positions_agree(tmp_path: Path) -> None:
    write_lake(tmp_path / "lake", [interaction(1, "ann", "x")], CATALOGUE)
    first = build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    write_lake(tmp_path / "lake", items={**CATALOGUE, "a": "{}"}, version=2)
    second = build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    started_anew = build_snapshot(tmp_path / "lake", tmp_path / "other", TENANT)
    assert first.positions_id == second.positions_id != started_anew.positions_id


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(TYPE_CODES)), st.none() | st.floats(0, 1, width=32)), min_size=1, max_size=20
    )
)
def test_weights_are_those_of_the_online_view(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, float | None]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("lake")
    rows = [
        interaction(number, "ann", "x", number, **{c.INTERACTION_TYPE: kind, c.VALUE: value})
        for number, (kind, value) in enumerate(events)
    ]
    write_lake(tmp_path / "lake", rows, CATALOGUE)
    _, interactions, _ = built(tmp_path)
    types = np.array([TYPE_CODES[kind] for kind, _ in events], dtype=np.int8)
    values = np.array([np.nan if value is None else value for _, value in events], dtype=np.float32)
    assert [row[c.TYPE] for row in interactions] == types.tolist()
    assert [row[c.WEIGHT] for row in interactions] == event_weights(types, values).tolist()


def test_only_the_snapshots_built_last_are_kept(tmp_path: Path) -> None:
    ids = []
    for number in range(3):
        write_lake(tmp_path / "lake", [interaction(number, "ann", "x", number)], CATALOGUE)
        ids.append(built(tmp_path)[0])
    assert prune_snapshots(tmp_path / "features", TENANT, keep=2) == ids[:1]
    assert sorted(path.parent.name for path in (tmp_path / "features").rglob("manifest.json")) == sorted(ids[1:])
    write_lake(tmp_path / "lake", [interaction(3, "ann", "x", 3)])
    built(tmp_path)
    assert prune_snapshots(tmp_path / "features", TENANT, keep=9) == []


def test_an_erasure_waits_for_the_snapshot_that_is_being_built_and_deletes_it(tmp_path: Path) -> None:
    write_lake(tmp_path / "lake", [interaction(1, "ann", "x", 1)], CATALOGUE)
    features = open_storage(tmp_path / "features" / f"tenant={TENANT}")
    with ThreadPoolExecutor(1) as pool:
        with features.lock():  # as whoever builds one
            pruning = pool.submit(prune_snapshots, tmp_path / "features", TENANT, keep=0)
            wait_until("the erasure", waits_for_folder_lock)
            with features.put_folder("0123456789abcdef") as folder:
                manifest = {"snapshot_id": "0123456789abcdef", "tenant_id": TENANT, "positions_id": "p"}
                numbers = dict.fromkeys(("catalogue_version", "n_users", "n_items", "n_interactions"), 1)
                times = dict.fromkeys(("first_timestamp", "last_timestamp", "created_at"), "2026-01-01T00:00:00Z")
                (folder / "manifest.json").write_text(json.dumps(manifest | numbers | times))
        assert pruning.result() == ["0123456789abcdef"]
    assert features.files() == []


def test_a_lake_without_exports_makes_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no catalogue"):
        build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
    write_lake(tmp_path / "lake", items=CATALOGUE)
    assert TenantLake(tmp_path / "lake", TENANT).interaction_files() == []
    with pytest.raises(FileNotFoundError, match="no interactions"):
        build_snapshot(tmp_path / "lake", tmp_path / "features", TENANT)
