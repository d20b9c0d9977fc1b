"""Queries that do not fit in memory write beside the files that they read, and nowhere else."""

from pathlib import Path

from feature_store.query_database import query_database
from tests.fixtures.platform import ROOT


def test_what_does_not_fit_in_memory_goes_to_a_folder_that_is_deleted(tmp_path: Path) -> None:
    with query_database(tmp_path) as database:
        database.execute("SET memory_limit = '16MB'; SET threads = 1; SET preserve_insertion_order = false")
        database.execute("CREATE TABLE rows AS SELECT range AS n, md5(range::VARCHAR) AS word FROM range(800_000)")
        assert [path for path in tmp_path.rglob("*.tmp") if path.parent.name.startswith(".scratch-")]
    assert list(tmp_path.iterdir()) == []


def test_no_other_module_lets_duckdb_choose_the_folder() -> None:
    by_module = {
        source.relative_to(ROOT).as_posix()
        for package in ("api", "feature_store", "pipelines", "serving", "training")
        for source in (ROOT / package).rglob("*.py")
        if "duckdb.connect(" in source.read_text(encoding="utf-8")
    }
    assert by_module == {
        "feature_store/query_database.py",
        "feature_store/reconciliation.py",  # in a work folder of the storage
        "api/imports/load.py",  # in a scratch folder
    }
