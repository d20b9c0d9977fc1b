"""A database that is dumped and restored: the lake follows it into the other cluster, and to the older moment."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg.conninfo import conninfo_to_dict

from configs.local.os_user import OsUser
from configs.local.postgres_cluster import binaries
from feature_store import columns as c
from feature_store import sources
from feature_store.analytics_sinks import roll_up_step
from feature_store.exports import export_interactions, export_items
from feature_store.lake import TenantLake
from feature_store.reconciliation import UnrelatedDatabaseError
from tests.feature_store.rows import add_interactions, add_items, add_tenant
from tests.fixtures.postgres import empty_database, running_postgres

TENANT = "acme"
DAY = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def old_cluster() -> Iterator[str]:
    """The URL of another cluster, whose transactions have gone much further than those of the tests' own."""
    with running_postgres() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "DO $$ BEGIN WHILE pg_current_xact_id()::text::bigint <= 30000 LOOP COMMIT; END LOOP; END $$"
            )
        yield url


@dataclass
class Database:
    """A database of a tenant, and a way to write into it."""

    url: str
    connection: psycopg.Connection[Any]

    def add(self, *users: str, arrived: datetime) -> None:
        add_interactions(self.connection, TENANT, [(user, "i1") for user in users], arrived=arrived)

    def erase(self, user: str) -> None:
        self.connection.execute("DELETE FROM interactions WHERE user_id = %s", (user,))
        self.connection.execute(
            "INSERT INTO tombstones (tenant_id, user_id, erased_at) VALUES (%s, %s, now())", (TENANT, user)
        )

    def dump(self, file: Path) -> Path:
        run("pg_dump", self.url, "--format=custom", f"--file={file}")
        return file


def run(program: str, url: str, *arguments: str) -> None:
    parts = conninfo_to_dict(url)
    environment = {
        "PGHOST": str(parts["host"]),
        "PGPORT": str(parts["port"]),
        "PGUSER": str(parts["user"]),
        "PGPASSWORD": str(parts["password"]),
        "PGDATABASE": str(parts["dbname"]),
    }
    subprocess.run([binaries(OsUser()) / program, *arguments], env=environment, check=True)


@pytest.fixture
def old(old_cluster: str) -> Iterator[Database]:
    from api.database.migrate import upgrade

    with empty_database(old_cluster) as url:
        upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            add_tenant(connection, TENANT)
            yield Database(url, connection)


@pytest.fixture
def new(postgres_url: str) -> Iterator[Database]:
    """An empty database in the tests' own cluster."""
    with empty_database(postgres_url) as url, psycopg.connect(url, autocommit=True) as connection:
        yield Database(url, connection)


def restored(new: Database, dump: Path) -> Database:
    run(
        "pg_restore",
        new.url,
        "--no-owner",
        "--exit-on-error",
        f"--dbname={conninfo_to_dict(new.url)['dbname']}",
        str(dump),
    )
    return new


def users(lake: Path) -> list[str]:
    tables = [pq.read_table(file, columns=[c.USER_ID]) for file in TenantLake(lake, TENANT).interaction_files()]
    return sorted(user for table in tables for user in table.column(c.USER_ID).to_pylist())


def test_new_rows_come_and_the_erased_go_after_a_dump_and_a_restore_into_a_new_cluster(
    old: Database, new: Database, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    old.add("ann", "ben", arrived=DAY)
    export_interactions(old.url, lake, TENANT)
    restored(new, old.dump(tmp_path / "dump"))
    new.erase("ben")
    new.add("cy", arrived=DAY + timedelta(days=1))
    cursor = TenantLake(lake, TENANT).cursor()
    assert sources.oldest_erasure(new.url, TENANT, cursor.next_xid, cursor.cluster) is not None
    first = export_interactions(new.url, lake, TENANT)
    assert (first.new_rows, first.erased_users, first.total_rows) == (1, 1, 2)
    assert users(lake) == ["ann", "cy"]
    new.add("dan", arrived=DAY + timedelta(days=2))
    new.erase("ann")
    second = export_interactions(new.url, lake, TENANT)
    assert (second.new_rows, second.erased_users, second.total_rows) == (1, 1, 2)
    assert users(lake) == ["cy", "dan"]
    cursor = TenantLake(lake, TENANT).cursor()
    assert sources.oldest_erasure(new.url, TENANT, cursor.next_xid, cursor.cluster) is None
    assert sources.unexported(new.url, {TENANT: (cursor.next_xid, cursor.cluster)}, 9)[0].interactions == 0


def test_a_restore_to_an_older_moment_takes_later_rows_away_and_leaves_those_that_were_not_kept(
    old: Database, new: Database, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    old.add("long-ago", arrived=DAY - timedelta(days=400))
    old.add("ann", arrived=DAY)
    export_interactions(old.url, lake, TENANT)
    old.connection.execute("DELETE FROM interactions WHERE user_id = 'long-ago'")  # the database keeps a year
    old.add("not-exported", arrived=DAY + timedelta(hours=1))
    dump = old.dump(tmp_path / "dump")
    old.connection.execute("DELETE FROM interactions WHERE user_id = 'not-exported'")
    old.add("lost", "ann", arrived=DAY + timedelta(hours=2))
    export_interactions(old.url, lake, TENANT)
    assert users(lake) == ["ann", "ann", "long-ago", "lost"]
    told: list[pa.Table] = []
    done = export_interactions(restored(new, dump).url, lake, TENANT, told.append)
    assert users(lake) == ["ann", "long-ago", "not-exported"]
    assert (done.new_rows, done.removed_rows, done.total_rows) == (1, 2, 3)
    assert [table.num_rows for table in told] == [0]  # so that features of the lost rows go


def test_a_database_that_has_none_of_the_rows_of_a_lake_does_not_empty_it(
    old: Database, new: Database, tmp_path: Path
) -> None:
    """As where DATABASE_URL names the wrong database."""
    lake = tmp_path / "lake"
    dump = old.dump(tmp_path / "dump")
    old.add("ann", "ben", arrived=DAY)
    export_interactions(old.url, lake, TENANT)
    other = restored(new, dump)
    other.add("eve", arrived=DAY + timedelta(days=1))
    other.erase("ben")
    with pytest.raises(UnrelatedDatabaseError, match="DATABASE_URL"):
        export_interactions(other.url, lake, TENANT)
    assert users(lake) == ["ann", "ben"]
    export_interactions(old.url, lake, TENANT)  # its own database goes on
    other.erase("ann")
    assert export_interactions(other.url, lake, TENANT).removed_rows == 0
    assert users(lake) == ["eve"]


def test_an_interrupted_reconciliation_is_done_by_the_next_export(
    old: Database, new: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = tmp_path / "lake"
    old.add("ann", arrived=DAY)
    export_interactions(old.url, lake, TENANT)
    restored(new, old.dump(tmp_path / "dump")).add("ben", arrived=DAY + timedelta(days=1))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TenantLake, "_move_cursor", killed)
        with pytest.raises(KeyboardInterrupt):
            export_interactions(new.url, lake, TENANT)
    assert users(lake) == ["ann"]
    export_interactions(new.url, lake, TENANT)
    assert users(lake) == ["ann", "ben"]
    assert not list(lake.rglob(".tmp-*"))


def test_a_dump_restored_into_the_same_cluster_is_noticed(postgres_url: str, old: Database, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    old.add("ann", arrived=DAY)
    export_interactions(old.url, lake, TENANT)
    dump = old.dump(tmp_path / "dump")
    old.add("lost", arrived=DAY + timedelta(hours=1))
    export_interactions(old.url, lake, TENANT)
    run("pg_restore", old.url, "--no-owner", "--clean", f"--dbname={conninfo_to_dict(old.url)['dbname']}", str(dump))
    assert export_interactions(old.url, lake, TENANT).removed_rows == 1
    assert users(lake) == ["ann"]


def test_the_lakes_catalogue_is_that_of_the_restored_database(old: Database, new: Database, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    add_items(old.connection, TENANT, {"a": {"title": "before"}})
    dump = old.dump(tmp_path / "dump")
    add_items(old.connection, TENANT, {"a": {"title": "lost"}})
    export_items(old.url, lake, TENANT)
    export_items(restored(new, dump).url, lake, TENANT)
    version, file = TenantLake(lake, TENANT).items_file()
    assert (version, pq.read_table(file).column(c.METADATA).to_pylist()) == (1, ['{"title": "before"}'])


def test_analytics_count_restored_and_new_rows_once(old: Database, new: Database, tmp_path: Path) -> None:
    old.add("ann", "ben", arrived=DAY)
    roll_up_step(old.url, TENANT)
    old.add("cy", arrived=DAY)  # not counted when the dump is made
    restored(new, old.dump(tmp_path / "dump")).add("dan", arrived=DAY)
    roll_up_step(new.url, TENANT)
    new.add("eve", arrived=DAY)
    roll_up_step(new.url, TENANT)
    roll_up_step(new.url, TENANT)
    counted = new.connection.execute("SELECT interactions FROM analytics_totals").fetchall()
    assert counted == [(5,)]


def test_adopting_a_cluster_makes_no_history_out_of_date(old: Database, new: Database, tmp_path: Path) -> None:
    old.connection.execute("INSERT INTO users (tenant_id, id) VALUES (%s, 'ann')", (TENANT,))
    old.add("ann", arrived=DAY)
    restored(new, old.dump(tmp_path / "dump"))
    read = "SELECT history_version, xid::text FROM users"
    (before, written), *_ = new.connection.execute(read).fetchall()
    sources.adopt_cluster(new.url)
    assert new.connection.execute(read).fetchall() == [(before, "3")]
    assert written != "3"


def test_a_role_without_special_rights_learns_the_cluster(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT usesuper FROM pg_user WHERE usename = current_user").fetchone() == (False,)
    assert sources.adopt_cluster(database_url) == sources.adopt_cluster(database_url)
    assert len(sources.adopt_cluster(database_url).split("/")) == 4


def test_every_transaction_id_of_the_schema_is_adopted(database_url: str) -> None:
    """A new column of this type would hold ids of a lost cluster for ever: `adopt_cluster` has to know it."""
    with psycopg.connect(database_url) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE udt_name = 'xid8' AND table_schema = 'public' ORDER BY 1, 2"
        ).fetchall()
        ((source,),) = connection.execute("SELECT prosrc FROM pg_proc WHERE proname = 'adopt_cluster'").fetchall()
    assert len(columns) >= 5
    missing = [(table, column) for table, column in columns if f"UPDATE {table} SET {column} = " not in source]
    assert missing == []
