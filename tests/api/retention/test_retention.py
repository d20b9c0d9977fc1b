"""What is too old is deleted in parts, and nobody's totals change by it."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from starlette.testclient import TestClient

from api.database import parts
from api.retention import repository
from configs.retention import RetentionSettings
from tests.api.analytics.conftest import admin, roll_up
from tests.fixtures.backend import Backend, backend

__all__ = ["admin", "backend", "roll_up"]

OLD = "interval '401 days'"


def expire(backend: Backend, settings: RetentionSettings | None = None) -> dict[str, int]:
    """Delete what is too old; how many rows of the tables that had any."""
    pool = backend.client.app.state.database.pool
    deleted = backend.client.portal.call(
        repository.delete_expired_rows, pool, RetentionSettings() if settings is None else settings
    )
    return {table: count for table, count in deleted.items() if count}


def recommend(backend: Backend, count: int) -> str:
    answer = backend.client.post("/api/v1/recommend", json={"userId": "ann", "count": count, "excludeSeen": "none"})
    assert len(answer.json()) == count, answer.text
    backend.client.portal.call(backend.client.app.state.recommendations.impressions.flush)
    return str(answer.headers["X-Recommendation-Id"])


def test_old_answers_go_with_their_pages_and_what_was_seen_and_totals_still_count_them(
    backend: Backend, admin: TestClient, roll_up: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "PART_ROWS", 2)
    backend.add_items({f"item-{n}": {} for n in range(9)})
    old = [recommend(backend, 3) for _ in range(5)]
    seen = {"recommendationId": old[0], "items": [{"itemId": "item-0", "position": 1}]}
    backend.sql("UPDATE impressions SET item_ids[1] = 'item-0' WHERE recommendation_id = %s", [old[0]])
    backend.client.post("/api/v1/impressions", json=seen)
    assert backend.sql("SELECT count(*) FROM seen_impressions") == [(1,)]
    backend.sql(f"UPDATE impressions SET created_at = now() - {OLD}")
    new = recommend(backend, 4)
    assert expire(backend) == {}, "what the pipeline has not counted yet stays"
    roll_up()
    before = admin.get("/api/analytics/stats").json(), admin.get("/api/analytics/data?period=90d").json()
    assert before[0]["totalRecommendations"] == 19
    assert expire(backend) == {"impressions": 5}
    assert (admin.get("/api/analytics/stats").json(), admin.get("/api/analytics/data?period=90d").json()) == before
    assert [str(row[0]) for row in backend.sql("SELECT recommendation_id FROM impressions")] == [new]
    assert backend.sql("SELECT count(*) FROM seen_impressions") == [(0,)]
    backend.sql("DELETE FROM analytics_days; UPDATE analytics_totals SET next_xid = '0', users = 0, shown = 0")
    roll_up()
    assert admin.get("/api/analytics/stats").json() == before[0], "a count made anew has the expired rows too"


def test_finished_jobs_go_after_their_records_once_they_are_metered(backend: Backend, admin: TestClient) -> None:
    backend.sql("INSERT INTO users (tenant_id, id) VALUES ('shop', 'ann') ON CONFLICT DO NOTHING")
    jobs = {name: uuid4() for name in ("old", "unmetered", "running", "new")}
    for name, id_ in jobs.items():
        status = "processing" if name == "running" else "completed"
        ended = None if name == "running" else 5 if name == "new" else 401
        backend.sql(
            "INSERT INTO generation_jobs (tenant_id, id, algorithm, user_segment, count, status, users_total, "
            "users_done, users_scored, users_metered, recommendations_written, created_at, finished_at) "
            "VALUES ('shop', %s, 'hybrid', 'all', 2, %s, 1, 1, 1, %s, 2, now() - interval '402 days', "
            "now() - make_interval(days => %s))",
            [id_, status, 0 if name == "unmetered" else 1, ended],
        )
    for age in (401, 401, 5):
        backend.sql(
            "INSERT INTO recommendations (tenant_id, user_id, item_id, rank, score, algorithm, reason, job_id, "
            "created_at) VALUES ('shop', 'ann', 'item', 1, 0.5, 'hybrid', '', %s, now() - make_interval(days => %s))",
            [jobs["old" if age == 401 else "new"], age],
        )
    before = admin.get("/api/analytics/stats").json()
    assert before["totalRecommendations"] == 8
    assert expire(backend) == {"recommendations": 2, "generation_jobs": 1}
    assert admin.get("/api/analytics/stats").json() == before
    assert {row[0] for row in backend.sql("SELECT id FROM generation_jobs")} == set(jobs.values()) - {jobs["old"]}
    assert backend.sql("SELECT count(*) FROM recommendations") == [(1,)]


def test_the_audit_trail_goes_in_parts_and_rows_that_others_hold_are_passed_over(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 3)
    backend.sql(
        "INSERT INTO audit_entries (tenant_id, actor, action, at) "
        "SELECT 'shop', 'service', 'key.old', now() - make_interval(days => 390 + number) "
        "FROM generate_series(1, 15) AS old (number)"
    )
    with psycopg.connect(backend.url) as other:
        other.execute("SELECT FROM audit_entries WHERE action = 'key.old' ORDER BY at LIMIT 1 FOR UPDATE")
        assert expire(backend) == {"audit_entries": 8}
    assert expire(backend) == {"audit_entries": 1}
    assert expire(backend, RetentionSettings(audit_days=392)) == {"audit_entries": 5}
