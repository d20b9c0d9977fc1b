"""A backup of a server of an earlier major version is restored into the bundled one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from configs.local.postgres_cluster import MAJOR
from configs.settings import PathSettings
from tests.api.backup.installation import ERASED, STAYS, TENANT, Place, bundled, command, fill
from tests.fixtures.folders import open_folder
from tests.fixtures.older_postgres import OLDER, older_postgres

pytestmark = pytest.mark.service


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = open_folder("backup")
    yield folder
    shutil.rmtree(folder)


def test_a_backup_of_an_earlier_major_version_is_restored_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    before = folder / "before"
    before.mkdir()
    with older_postgres() as url:
        old = Place(PathSettings(state_dir=before), url, url)
        assert old.sql("SHOW server_version_num")[0][0].startswith(str(OLDER))
        fill(old)
        made = command("backup", "--to", str(folder / "backup"), state=before, DATABASE_URL=url)
        assert made.returncode == 0, made.stderr
    done = command("restore", "--from", str(folder / "backup"), "--without-journal", state=folder / "after")
    assert done.returncode == 0, done.stderr
    with bundled(folder / "after") as new:
        assert new.sql("SHOW server_version_num")[0][0].startswith(MAJOR)
        assert new.in_lake() == [STAYS, ERASED]
        with psycopg.connect(new.url, autocommit=True) as connection:
            connection.execute("DELETE FROM interactions WHERE user_id = %s", [ERASED])
            connection.execute(
                "INSERT INTO tombstones (tenant_id, user_id, erased_at) VALUES (%s, %s, now())", [TENANT, ERASED]
            )
        new.interact("dan-11d0")
        new.export()
        assert new.in_lake() == [STAYS, "dan-11d0"]
