"""Old interactions move from their table to the archive, and no answer changes."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from api.database.scope import TenantScope
from api.imports.store import ImportStore
from api.lists import popular
from api.lists.popular import PopularityReader
from feature_store import interaction_archive
from feature_store.analytics_sources import evaluation_events
from feature_store.exports import export_interactions
from feature_store.generation_sources import generation_source
from feature_store.interaction_archive import IncompleteLakeError, archive_interactions
from feature_store.lake import TenantLake
from feature_store.loaders.prepare import INTERACTIONS
from feature_store.table_files import write_table
from tests.api.analytics.conftest import admin, roll_up
from tests.fixtures.backend import Backend, backend
from tests.fixtures.search import tables_with

__all__ = ["admin", "backend", "roll_up"]

USER = "erasmus-7f3a"
COUNT = "SELECT count(*) FROM interactions"


@pytest.fixture(autouse=True)
def few_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interaction_archive.KEPT_NEWEST >= popular.WINDOW
    monkeypatch.setattr(interaction_archive, "KEPT_NEWEST", 3)
    monkeypatch.setattr(popular, "WINDOW", 3)


@pytest.fixture
def lake(tmp_path: Path, backend: Backend) -> TenantLake:
    return TenantLake(tmp_path / "lake", backend.tenant_id)


def export(backend: Backend, lake: TenantLake) -> int:
    return export_interactions(backend.url, lake.root, lake.tenant_id).new_rows


def archive(backend: Backend, lake: TenantLake, deadline: float | None = None) -> int:
    """Walk through all users; how many interactions were moved."""
    moved, user, calls = 0, "", 0
    while True:
        until = time.monotonic() + 60 if deadline is None else deadline
        part = archive_interactions(backend.url, lake, 100, user, until)
        moved, calls = moved + part.moved, calls + 1
        if part.next_user is None:
            return moved
        user = part.next_user
        assert calls < 50


def live(backend: Backend) -> None:
    """Three users act over two years; two interactions are of today, and two arrived today only."""
    backend.add_items({f"item-{n}": {} for n in range(12)})
    for user, items in ((USER, range(12)), ("ann", range(3)), ("ben", (1, 1, 2))):
        for n in items:
            backend.interact(user, f"item-{n}", type_="purchase" if n % 3 == 0 else "view", value=n / 20)
    backend.sql(
        "UPDATE interactions SET occurred_at = aged.at, ingested_at = aged.at FROM (SELECT id, "
        "date_trunc('second', now()) - make_interval(days => 60 * row_number() OVER (ORDER BY item_id, id)::integer) "
        "AS at FROM interactions) AS aged WHERE aged.id = interactions.id"
    )
    backend.sql(
        "UPDATE interactions SET ingested_at = now() "
        "WHERE id IN (SELECT id FROM interactions ORDER BY occurred_at LIMIT 2)"
    )
    answer = backend.client.post("/api/v1/recommend", json={"userId": USER, "count": 2, "excludeSeen": "none"})
    for item in answer.json():
        backend.interact(USER, item["itemId"], recommendationId=answer.headers["X-Recommendation-Id"])
    backend.client.portal.call(backend.client.app.state.recommendations.impressions.flush)


def answers(backend: Backend, admin: TestClient, folder: Path) -> dict[str, Any]:
    """What everybody who reads interactions answers."""
    backend.sql("DELETE FROM user_histories")  # so that histories are built anew
    found: dict[str, Any] = {}
    for user in (USER, "ann", "ben"):
        for policy in ("all", "bought"):
            body = {"userId": user, "count": 12, "excludeSeen": policy}
            shown = backend.post("/api/v1/recommend", body)
            found[f"recommend {user} {policy}"] = {row["itemId"] for row in shown}
        found[f"viewed {user}"] = backend.client.get(f"/api/v1/lists/recently-viewed?userId={user}").json()
        found[f"log {user}"] = [
            admin.get(f"/api/users/{user}/interactions?page={page}&pageSize=5").json() for page in (1, 2, 3)
        ]
        found[f"export {user}"] = admin.get(f"/api/users/{user}/export").json()["interactions"]
    reader = PopularityReader(backend.client.app.state.database.pool)  # the application's keeps what it read before
    found["popular"] = backend.client.portal.call(reader.of, TenantScope(backend.tenant_id))
    now = datetime.now(UTC)
    events = evaluation_events(backend.url, backend.tenant_id, now - timedelta(days=90), now, 10, 5)
    found["evaluation"] = events.to_pylist()
    with generation_source(backend.url, backend.tenant_id) as source:
        found["generation"] = source.recent_events([USER, "ann", "ben", "nobody"], 4).to_pylist()
    write_table(backend.url, backend.tenant_id, "interactions", "parquet", folder / "file.parquet")
    found["file"] = pq.read_table(folder / "file.parquet").to_pylist()
    counted = backend.sql("SELECT user_id, count(*) FROM all_interactions GROUP BY user_id ORDER BY user_id")
    found["counts"] = counted
    return found


def figures(backend: Backend, admin: TestClient) -> dict[str, Any]:
    backend.client.portal.call(backend.client.app.state.recommendations.impressions.flush)
    paths = ("stats", "data?period=90d", "recommendations")
    return {path: admin.get(f"/api/analytics/{path}").json() for path in paths}


def imported_again(backend: Backend, folder: Path) -> int:
    """How many interactions a second import of all that there are adds."""
    rows = backend.sql("SELECT id::text, user_id, item_id, interaction_type, value, occurred_at FROM all_interactions")
    with duckdb.connect() as files, psycopg.connect(backend.url) as connection:
        files.execute(
            f"CREATE TABLE {INTERACTIONS} (id VARCHAR, user_id VARCHAR, item_id VARCHAR, interaction_type VARCHAR, "
            "value REAL, occurred_at TIMESTAMPTZ)"
        )
        files.executemany(f"INSERT INTO {INTERACTIONS} VALUES (?, ?, ?, ?, ?, ?)", rows)
        return ImportStore(connection, TenantScope(backend.tenant_id)).merge_interactions(files, folder)[1]


def test_archiving_changes_no_answer_and_keeps_rows_that_the_lake_lacks(
    backend: Backend,
    admin: TestClient,
    roll_up: Callable[[], Any],
    lake: TenantLake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interaction_archive, "MAX_USERS", 2)
    monkeypatch.setattr(interaction_archive, "MAX_MOVED", 3)
    live(backend)
    roll_up()
    assert archive(backend, lake) == 0, "nothing was exported yet"
    everything = export(backend, lake)
    before = answers(backend, admin, tmp_path)
    counted = figures(backend, admin)
    assert counted["stats"]["totalInteractions"] == everything
    versions = backend.sql("SELECT id, history_version FROM users ORDER BY id")
    attributed = backend.sql("SELECT count(*) FROM attributions")
    moved = archive(backend, lake, deadline=0.0)  # each call ends after its first transaction
    assert moved == everything - 5  # two arrived today, two of today, one of 60 days ago
    assert backend.sql(COUNT) == [(5,)]
    assert figures(backend, admin) == counted
    assert answers(backend, admin, tmp_path) == before
    assert backend.sql("SELECT id, history_version FROM users ORDER BY id") == versions
    assert backend.sql("SELECT count(*) FROM attributions") == attributed != [(0,)]
    backend.sql("DELETE FROM analytics_active_users; DELETE FROM analytics_days")
    backend.sql("UPDATE analytics_totals SET next_xid = '0', users = 0, shown = 0, interactions = 0")
    roll_up()
    assert figures(backend, admin)["stats"]["totalInteractions"] == everything, "a count made anew has the archive too"
    backend.sql("UPDATE interactions SET ingested_at = occurred_at")  # as if they had arrived long ago
    assert archive(backend, lake) == 2
    assert answers(backend, admin, tmp_path)["counts"] == before["counts"]
    rebuilt = export_interactions(backend.url, tmp_path / "another-lake", backend.tenant_id)
    assert rebuilt.new_rows == everything, "a lake that was lost gets all of them again"
    assert imported_again(backend, tmp_path) == 0


def test_an_erased_user_is_erased_from_the_archive_and_from_its_totals(
    backend: Backend, admin: TestClient, roll_up: Callable[[], Any], lake: TenantLake
) -> None:
    live(backend)
    roll_up()
    everything = export(backend, lake)
    assert archive(backend, lake) > 0
    assert "archived_interactions" in tables_with(backend.url, USER)
    (own,) = backend.sql("SELECT count(*) FROM all_interactions WHERE user_id = %s", [USER])[0]
    assert admin.delete(f"/api/users/{USER}").status_code == 204
    assert "archived_interactions" not in tables_with(backend.url, USER)
    assert backend.sql("SELECT count(*) FROM attributions") == [(0,)]
    assert admin.get("/api/analytics/stats").json()["totalInteractions"] == everything - own


def test_nothing_is_moved_where_files_of_the_lake_are_gone(
    backend: Backend, roll_up: Callable[[], Any], lake: TenantLake
) -> None:
    live(backend)
    roll_up()
    everything = export(backend, lake)
    lake.interaction_files()[0].unlink()
    with pytest.raises(IncompleteLakeError, match="exported interactions"):
        archive(backend, lake)
    assert backend.sql(COUNT) == [(everything,)]
