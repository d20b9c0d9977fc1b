"""Lake and features in an object store: the same rows, the same snapshots, and nothing of who was erased."""

from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from configs.settings import PathSettings
from feature_store import columns as c
from feature_store.exports import export_interactions, export_items
from feature_store.lake import TenantLake
from feature_store.lake_events import open_lake_events
from feature_store.snapshot_files import snapshot_folder
from feature_store.snapshots import build_snapshot, prune_snapshots
from tests.feature_store.rows import add_interactions, add_items, add_tenant
from tests.feature_store.test_erasure import erase
from tests.fixtures.object_store import ObjectStore
from tests.fixtures.search import files_with
from training.data.dataset import load_snapshot

pytestmark = pytest.mark.service
TENANT = "acme"


def test_rows_become_the_same_snapshot_as_on_a_disk(
    object_store: ObjectStore, database_url: str, tmp_path: Path
) -> None:
    paths, local = PathSettings(), tmp_path / "local"
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_tenant(connection, TENANT)
        add_items(connection, TENANT, {"i1": {"title": "one"}, "i2": {}})
        add_interactions(connection, TENANT, [("ann", "i1"), ("ben", "i2")])
        for lake in (paths.lake, local / "lake"):
            export_interactions(database_url, lake, TENANT)
        add_interactions(connection, TENANT, [("cy", "i1")])
        for lake in (paths.lake, local / "lake"):
            assert export_interactions(database_url, lake, TENANT).total_rows == 3
            export_items(database_url, lake, TENANT)
    made = build_snapshot(paths.lake, paths.features, TENANT)
    assert made.snapshot_id == build_snapshot(local / "lake", local / "features", TENANT).snapshot_id
    dataset = load_snapshot(snapshot_folder(paths.features, TENANT, made.snapshot_id))
    assert (dataset.n_users, dataset.n_items) == (3, 2)
    with open_lake_events(TenantLake(paths.lake, TENANT)) as events:
        assert events.value("SELECT count(*) FROM events") == 3
    assert build_snapshot(paths.lake, paths.features, TENANT).positions_id == made.positions_id
    assert not [path for path in (paths.lake, paths.features) if path.exists() and any(path.rglob("*.parquet"))]


def test_an_erased_user_is_in_no_object_and_in_no_copy(
    object_store: ObjectStore, database_url: str, tmp_path: Path
) -> None:
    paths = PathSettings()
    with psycopg.connect(database_url, autocommit=True) as connection:
        add_tenant(connection, TENANT)
        add_items(connection, TENANT, {"i1": {}})
        add_interactions(connection, TENANT, [("ann-who-stays", "i1"), ("ben-who-goes", "i1")])
        export_interactions(database_url, paths.lake, TENANT)
        export_items(database_url, paths.lake, TENANT)
        build_snapshot(paths.lake, paths.features, TENANT)
        assert users(paths) == ["ann-who-stays", "ben-who-goes"]
        erase(connection, "ben-who-goes")
    erased = export_interactions(
        database_url, paths.lake, TENANT, lambda tombstones: prune_snapshots(paths.features, TENANT, keep=0)
    )
    assert erased.erased_users == 1
    assert users(paths) == ["ann-who-stays"]
    assert [key for key in object_store.object_keys() if "/features/" in f"/{key}"] == [
        f"features/tenant={TENANT}/positions.parquet"
    ]
    for number, key in enumerate(object_store.object_keys()):
        object_store.bucket.fetch(key, tmp_path / f"{number}{Path(key).suffix}")
    assert files_with(tmp_path, "ann-who-stays")
    assert not files_with(tmp_path, "ben-who-goes")


def users(paths: PathSettings) -> list[str]:
    tables = [pq.read_table(file, columns=[c.USER_ID]) for file in TenantLake(paths.lake, TENANT).interaction_files()]
    return sorted(user for table in tables for user in table.column(c.USER_ID).to_pylist())
