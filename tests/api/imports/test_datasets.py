"""Data sets that come in wheels, through the command line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from tests.fixtures.platform import ROOT


def run(url: str, state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "DATABASE_URL": url, "RECOMMENDAI_STATE_DIR": str(state)}
    command = [sys.executable, "-m", "api", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_movielens_comes_in_whole_and_once(database_url: str, tenants: Any, tmp_path: Path) -> None:
    tenants.create("films")
    for _ in range(2):
        result = run(database_url, tmp_path, "load-dataset", "movielens-100k", "--tenant", "films")
        assert (result.returncode, result.stdout) == (0, ""), result.stderr
        assert "GroupLens" in result.stderr
    assert "added: 0 items, 0 users, 0 interactions" in result.stderr.replace("\n", " ")
    with psycopg.connect(database_url) as connection:
        types = connection.execute(
            "SELECT interaction_type, count(*), min(value)::float, max(value)::float FROM interactions "
            "GROUP BY 1 ORDER BY 1"
        ).fetchall()
        assert [(name, count) for name, count, *_ in types] == [("click", 27_145), ("like", 55_375), ("view", 17_480)]
        assert [round(bound, 3) for *_, low, high in types for bound in (low, high)] == [0.6, 0.6, 0.8, 1.0, 0.2, 0.4]
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (943,)
        assert connection.execute("SELECT exclude_seen FROM tenants").fetchone() == ("all",)
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (1_682,)
        metadata = connection.execute("SELECT metadata FROM items WHERE id = '1'").fetchone()
        assert metadata == (
            {
                "title": "Toy Story",
                "year": 1995,
                "genres": ["Animation", "Children's", "Comedy"],
                "releaseDate": "1995-01-01",
            },
        )


def test_a_refused_import_exits_with_2_and_says_so(database_url: str, tenants: Any, tmp_path: Path) -> None:
    tenants.create("films")
    path = tmp_path / "items.csv"
    path.write_text("sku\na\n")
    result = run(database_url, tmp_path, "import", "--tenant", "films", "--items", str(path))
    assert (result.returncode, result.stdout) == (2, "")
    assert f"Nothing was loaded. {path}: has no column 'id'" in result.stderr
