"""Lists for all users in Parquet files: as in the database, each once, and without those who are erased."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.generation import GenerationSettings
from configs.settings import PathSettings
from feature_store import columns as c
from feature_store.generation_files import GeneratedFiles, jobs_with_files
from feature_store.generation_sinks import generating
from feature_store.schemas import GENERATED_FILES, RECOMMENDATIONS
from pipelines.defs.generation import targets
from pipelines.defs.ingestion.steps import export
from pipelines.defs.ingestion.tenant_deletion import files_of_tenant
from pipelines.defs.retention.sensors import old_recommendation_files
from pipelines.resources import Installation
from tests.feature_store.test_erasure import erase
from tests.fixtures.object_store import ObjectStore
from tests.pipelines.conftest import TENANT
from tests.pipelines.test_generation import COUNT, add_users, ask, job, release, run, shop  # noqa: F401 - fixtures

Connection = psycopg.Connection[Any]
ROWS = "SELECT user_id, item_id, rank, score, algorithm, reason, release FROM recommendations WHERE job_id = %s"


@pytest.fixture
def to_files(installation: Installation) -> Installation:
    return replace(installation, generation=GenerationSettings(target="parquet"))


def filed(installation: Installation, job_id: str) -> list[tuple[Any, ...]]:
    """All rows of a job's files, as `ROWS` has them."""
    parts = GeneratedFiles(installation.paths.recommendations, TENANT, job_id).parts()
    tables = [pq.ParquetFile(part).read() for part in parts]
    assert all(table.schema.equals(GENERATED_FILES) for table in tables)
    names = (c.USER_ID, c.ITEM_ID, c.RANK, c.SCORE, c.ALGORITHM, c.REASON, c.RELEASE)
    return [row for table in tables for row in zip(*(table[name].to_pylist() for name in names), strict=True)]


def test_files_hold_the_lists_of_the_database_also_where_a_run_broke_off(
    installation: Installation,
    to_files: Installation,
    shop: Connection,  # noqa: F811
    release: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users = [f"user-{number}" for number in range(9)]
    add_users(shop, *users)
    in_database, in_files = ask(shop), ask(shop)
    shop.execute("UPDATE generation_jobs SET status = 'failed' WHERE id = %s", [in_files])
    run(installation)
    shop.execute("UPDATE generation_jobs SET status = 'processing' WHERE id = %s", [in_files])
    monkeypatch.setattr(targets, "PART_ROWS", 2 * COUNT + 1)  # two batches of two users

    def break_off(done: int, _total: int) -> None:
        if done == 6:
            raise RuntimeError("as a failing disk would")

    with pytest.raises(RuntimeError):
        run(to_files, break_off, max_batch=2)
    assert job(shop, in_files)[:4] == ("processing", 9, 4, 4 * COUNT)
    (outcome,) = run(to_files, max_batch=2)
    assert (outcome.users, outcome.recommendations) == (5, 5 * COUNT)
    assert outcome.users_per_second == outcome.users / outcome.seconds > 0
    assert job(shop, in_files) == ("completed", 9, 9, 9 * COUNT, None)
    rows = filed(to_files, in_files)
    assert rows == shop.execute(f"{ROWS} ORDER BY 1, 3", [in_database]).fetchall()
    assert shop.execute("SELECT count(*) FROM recommendations WHERE job_id = %s", [in_files]).fetchone() == (0,)
    folder = to_files.paths.recommendations / f"tenant={TENANT}" / f"job={in_files}"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["release"], manifest["recommendations"]) == (release, len(rows))
    assert manifest["parts"] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert [place.key for place in files_of_tenant(to_files.paths, TENANT) if place.storage.exists(place.key)]


def test_a_file_whose_count_was_lost_with_its_run_is_not_written_again(
    to_files: Installation,
    shop: Connection,  # noqa: F811
    release: str,  # noqa: F811
) -> None:
    add_users(shop, "ann", "bob", "cy")
    id_ = ask(shop)
    created = dict(shop.execute("SELECT id, created_at FROM users WHERE id IN ('ann', 'bob')").fetchall())
    rows = {
        c.USER_ID: list(created),
        c.CREATED_AT: list(created.values()),
        c.ITEM_ID: ["horror-1"] * 2,
        c.RANK: [1] * 2,
        c.SCORE: [0.5] * 2,
        c.REASON: ["why not"] * 2,
    }
    files = GeneratedFiles(to_files.paths.recommendations, TENANT, id_)

    def put_and_die(left: pa.Table) -> None:
        more = {c.ALGORITHM: ["collaborative"] * 2, c.RELEASE: [release] * 2}
        files.put(pa.table({**rows, **more}, schema=GENERATED_FILES))
        raise KeyboardInterrupt

    with generating(to_files.database_url(), TENANT) as generation:
        assert generation is not None
        claimed = generation.next_job()
        assert claimed is not None
        generation.begin(claimed, release, 3)
        with pytest.raises(KeyboardInterrupt), files.writing():
            generation.write_file(claimed, pa.table(rows, schema=RECOMMENDATIONS), 2, put_and_die)
    assert job(shop, id_)[:4] == ("processing", 3, 0, 0)
    run(to_files)
    assert job(shop, id_) == ("completed", 3, 3, 2 + COUNT, None)
    assert shop.execute("SELECT users_scored FROM generation_jobs WHERE id = %s", [id_]).fetchone() == (3,)
    assert [row[0] for row in filed(to_files, id_)] == ["ann", "bob", *["cy"] * COUNT]


def test_who_goes_or_is_hidden_meanwhile_is_in_no_file_nor_who_is_erased_later(
    to_files: Installation,
    shop: Connection,  # noqa: F811
    release: str,  # noqa: F811
) -> None:
    export(to_files, TENANT)
    add_users(shop, "a", "erased", "gone", "new-owner", "taken")
    id_ = ask(shop, count=60)

    def progress(done: int, _total: int) -> None:
        if done == 2:
            shop.execute("DELETE FROM users WHERE id IN ('gone', 'new-owner')")
            add_users(shop, "new-owner")
            shop.execute(
                "UPDATE items SET is_active = false WHERE id = 'horror-1'"
            )  # at an old version of the catalogue

    run(to_files, progress, max_batch=2)
    found = filed(to_files, id_)
    assert {row[0] for row in found} == {"a", "erased", "taken"}
    assert "horror-1" not in {row[1] for row in found}
    shop.execute("DELETE FROM users WHERE id IN ('erased', 'taken')")
    erase(shop, "erased")
    shop.execute("INSERT INTO tombstones VALUES (%s, 'taken', now() - interval '1 day')", [TENANT])  # an earlier owner
    export(to_files, TENANT)
    assert {row[0] for row in filed(to_files, id_)} == {"a", "taken"}


def test_files_go_with_time_and_with_their_job(
    to_files: Installation,
    connection: Connection,
    instance: dg.DagsterInstance,
) -> None:
    old, new, active, failed = (ask(connection) for _ in range(4))
    connection.execute("UPDATE generation_jobs SET status = 'completed', finished_at = now() WHERE id = %s", [new])
    for id_, status in ((old, "completed"), (failed, "failed")):
        at = datetime.now(UTC) - timedelta(days=31)
        statement = "UPDATE generation_jobs SET status = %s, finished_at = %s WHERE id = %s"
        connection.execute(statement, [status, at, id_])
    root = to_files.paths.recommendations
    for id_ in (old, new, active, failed, unknown := str(uuid4())):
        GeneratedFiles(root, TENANT, id_).complete({})
    context = dg.build_sensor_context(instance, resources={"installation": to_files})
    told = old_recommendation_files(context)
    assert isinstance(told, dg.SkipReason) and "files of 3 generation jobs" in str(told.skip_message)
    assert jobs_with_files(root) == {(TENANT, new), (TENANT, active)}
    assert unknown not in str(list(root.rglob("*")))


@pytest.mark.service
def test_files_lie_in_the_object_store_where_one_is_set(object_store: ObjectStore) -> None:
    files = GeneratedFiles(PathSettings().recommendations, TENANT, "j1")
    row = {c.USER_ID: "ann", c.CREATED_AT: datetime.now(UTC), c.ITEM_ID: "i1", c.RANK: 1, c.SCORE: 0.5}
    row |= {c.REASON: "", c.ALGORITHM: "hybrid", c.RELEASE: "r1"}
    for _ in range(2):
        files.put(pa.Table.from_pylist([row], schema=GENERATED_FILES))
    assert (files.stored().users.to_pylist(), files.stored().rows) == (["ann"], 2)
    kept = [key for key in object_store.object_keys() if key.startswith("recommendations/")]
    assert [key.rpartition("/")[2] for key in kept] == ["part-00000.parquet", "part-00001.parquet"]
