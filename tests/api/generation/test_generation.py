"""`POST /api/recommendations/generate` and the status of its jobs, before the pipeline processes them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.generation.service import DEFAULT_SPEED
from tests.fixtures.backend import Backend
from tests.fixtures.people import person
from tests.fixtures.platform import wait_until
from tests.fixtures.usage import on_plan, subscribe

EXAMPLE = {"algorithm": "hybrid", "userSegment": "all", "count": 10}
NOW = datetime.now(UTC)


@pytest.fixture
def admin(backend: Backend) -> Any:
    return person(backend, "boss", "admin")


def generate(client: Any, status: int = 202, **body: Any) -> Any:
    answer = client.post("/api/recommendations/generate", json={**EXAMPLE, **body})
    assert answer.status_code == status, answer.text
    return answer.json()


def add_job(backend: Backend, **columns: Any) -> str:
    """A job as the pipeline leaves one: 100 users in 2 s, begun 4 s after it was asked for; its id."""
    row = {
        "tenant_id": backend.tenant_id,
        "id": uuid4(),
        "algorithm": "hybrid",
        "user_segment": "all",
        "count": 10,
        "status": "completed",
        "users_total": 100,
        "users_done": 100,
        "recommendations_written": 1000,
        "created_at": NOW,
        "started_at": NOW + timedelta(seconds=4),
        "finished_at": NOW + timedelta(seconds=6),
        **columns,
    }
    names, places = ", ".join(row), ", ".join(["%s"] * len(row))
    backend.sql(f"INSERT INTO generation_jobs ({names}) VALUES ({places})", list(row.values()))
    return str(row["id"])


def add_users(backend: Backend, *ids: str, **columns: Any) -> None:
    for id_ in ids:
        row = {"tenant_id": backend.tenant_id, "id": id_, **columns}
        names, places = ", ".join(row), ", ".join(["%s"] * len(row))
        backend.sql(f"INSERT INTO users ({names}) VALUES ({places})", list(row.values()))


def test_a_job_is_accepted_and_can_be_looked_at(backend: Backend, admin: Any) -> None:
    answer = admin.post("/api/recommendations/generate", json=EXAMPLE)
    assert answer.status_code == 202
    body = answer.json()
    assert body.keys() == {"jobId", "status", "estimatedCompletionMs"}
    assert body["status"] == "processing"
    assert isinstance(body["estimatedCompletionMs"], int) and body["estimatedCompletionMs"] > 0
    assert answer.headers["Location"] == f"/api/recommendations/jobs/{body['jobId']}"
    assert admin.get(answer.headers["Location"]).json() == {
        "jobId": body["jobId"],
        "status": "processing",
        "progress": 0.0,
        "usersTotal": 1,
        "usersDone": 0,
        "recommendationsWritten": 0,
    }
    row = backend.sql("SELECT tenant_id, algorithm, user_segment, count, status FROM generation_jobs")
    assert row == [("shop", "hybrid", "all", 10, "processing")]


def test_what_is_left_out_has_a_default(backend: Backend, admin: Any) -> None:
    assert admin.post("/api/recommendations/generate", json={}).status_code == 202
    assert backend.sql("SELECT algorithm, user_segment, count FROM generation_jobs") == [("hybrid", "all", 10)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"algorithm": "magic"}, "algorithm"),
        ({"algorithm": "popularity"}, "algorithm"),
        ({"userSegment": "some"}, "userSegment"),
        ({"count": 0}, "count"),
        ({"count": 101}, "count"),
        ({"count": "10"}, "count"),
        ({"count": None}, "count"),
    ],
)
def test_a_bad_request_is_400_and_makes_no_job(backend: Backend, admin: Any, body: dict[str, Any], field: str) -> None:
    assert [error["field"] for error in generate(admin, 400, **body)["errors"]] == [field]
    assert backend.sql("SELECT count(*) FROM generation_jobs") == [(0,)]


def test_jobs_are_for_administrators(backend: Backend, admin: Any) -> None:
    path = f"/api/recommendations/jobs/{generate(admin)['jobId']}"
    ann, nobody = person(backend, "ann"), person(backend, "ann")
    del nobody.headers["Authorization"]
    for client, status in ((ann, 403), (nobody, 401), (backend.client, 401)):
        generate(client, status)
        assert client.get(path).status_code == status
    assert backend.sql("SELECT count(*) FROM generation_jobs") == [(1,)]


def test_a_job_of_another_tenant_is_404(backend: Backend, admin: Any, tenants: Any) -> None:
    tenants.create("rival")
    foreign = person(backend, "boss", "admin", tenant_id="rival")
    job = generate(foreign)["jobId"]
    assert foreign.get(f"/api/recommendations/jobs/{job}").status_code == 200
    assert admin.get(f"/api/recommendations/jobs/{job}").status_code == 404


@pytest.mark.parametrize("id_", [str(UUID(int=0)), "no-uuid", "a%2Fb"])
def test_an_unknown_job_is_404(admin: Any, id_: str) -> None:
    assert admin.get(f"/api/recommendations/jobs/{id_}").status_code == 404


def test_a_wrong_method_is_405_and_says_which_is_right(admin: Any) -> None:
    answer = admin.get("/api/recommendations/generate")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_progress_is_the_part_of_the_users_that_is_done(backend: Backend, admin: Any) -> None:
    job = add_job(backend, status="processing", users_total=8, users_done=3, recommendations_written=30)
    body = admin.get(f"/api/recommendations/jobs/{job}").json()
    assert (body["status"], body["progress"], body["usersTotal"], body["usersDone"]) == ("processing", 0.375, 8, 3)
    assert body["recommendationsWritten"] == 30


def test_a_completed_job_is_at_one_also_where_there_was_nobody(backend: Backend, admin: Any) -> None:
    job = add_job(backend, users_total=0, users_done=0, recommendations_written=0)
    body = admin.get(f"/api/recommendations/jobs/{job}").json()
    assert (body["status"], body["progress"]) == ("completed", 1.0)
    assert "error" not in body


def test_a_failed_job_says_why(backend: Backend, admin: Any) -> None:
    job = add_job(backend, status="failed", error="no release", users_done=0)
    body = admin.get(f"/api/recommendations/jobs/{job}").json()
    assert (body["status"], body["error"]) == ("failed", "no release")


def test_the_estimate_is_the_speed_of_earlier_jobs(backend: Backend, admin: Any) -> None:
    add_users(backend, *[f"u{number}" for number in range(9)])  # ten with the administrator
    unmeasured = DEFAULT_SPEED.wait_seconds + 10 * DEFAULT_SPEED.user_seconds
    assert generate(admin)["estimatedCompletionMs"] == round(unmeasured * 1000)
    backend.sql("DELETE FROM generation_jobs")
    add_job(backend)  # 4 s of waiting, 20 ms a user
    assert generate(admin)["estimatedCompletionMs"] == 4200
    # The users of the job that is waiting now come first.
    assert generate(admin)["estimatedCompletionMs"] == 4400


def test_the_estimate_prefers_jobs_of_the_family_and_forgets_failed_ones(backend: Backend, admin: Any) -> None:
    add_job(backend)
    add_job(backend, status="failed", finished_at=NOW + timedelta(hours=1))
    add_job(backend, algorithm="deep-learning", finished_at=NOW + timedelta(seconds=54))  # 500 ms a user
    expected = {"hybrid": 4020, "deep-learning": 4500}
    for algorithm, milliseconds in expected.items():
        assert generate(admin, algorithm=algorithm)["estimatedCompletionMs"] == milliseconds
        backend.sql("DELETE FROM generation_jobs WHERE status = 'processing'")
    # A family without a job of its own is taken to be as fast as the others were: 52 s for 200 users.
    assert generate(admin, algorithm="collaborative")["estimatedCompletionMs"] == 4260


def test_another_tenants_jobs_are_no_measure(backend: Backend, admin: Any, tenants: Any) -> None:
    tenants.create("rival")
    add_job(Backend(backend.client, backend.url, "rival"))
    assert generate(admin)["estimatedCompletionMs"] == round(
        (DEFAULT_SPEED.wait_seconds + DEFAULT_SPEED.user_seconds) * 1000
    )


@pytest.mark.parametrize(("segment", "users"), [("all", 4), ("active", 2), ("new", 3)])
def test_the_users_of_a_segment_are_expected(backend: Backend, admin: Any, segment: str, users: int) -> None:
    add_users(backend, "quiet", last_active_at=NOW - timedelta(days=31))
    add_users(backend, "recent", last_active_at=NOW - timedelta(days=29))
    add_users(backend, "disabled", is_active=False, last_active_at=NOW)
    backend.add_items({id_: {} for id_ in "abcde"})
    backend.interact("busy", *"abcde", timestamp="2025-01-01T00:00:00Z")
    backend.interact("quiet", *"abcd", timestamp="2025-01-01T00:00:00Z")
    job = generate(admin, userSegment=segment)["jobId"]
    assert admin.get(f"/api/recommendations/jobs/{job}").json()["usersTotal"] == users


def test_a_deleted_tenant_gets_no_job(backend: Backend, admin: Any) -> None:
    generate(admin)
    backend.sql("UPDATE tenants SET deleted_at = now()")
    backend.sql("DELETE FROM generation_jobs")
    generate(admin, 401)
    assert backend.sql("SELECT count(*) FROM generation_jobs") == [(0,)]


def test_a_request_that_is_sent_again_makes_one_job(backend: Backend, admin: Any) -> None:
    headers = {"Idempotency-Key": "nightly"}
    answers = [admin.post("/api/recommendations/generate", json=EXAMPLE, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert backend.sql("SELECT count(*) FROM generation_jobs") == [(1,)]


@pytest.fixture
def metered(open_client: Any, tenants: Any) -> Iterator[Backend]:
    """On the plan `free`, which has 1,000 units: 894 are left. There are 100 users, the administrator among them."""
    with on_plan(open_client, tenants, "free", used=106) as backend:
        add_users(backend, *[f"u{number}" for number in range(99)])
        yield backend


def test_jobs_are_accepted_as_long_as_their_users_fit_in_what_is_left(metered: Backend) -> None:
    boss = person(metered, "boss", "admin")
    for _ in range(8):
        generate(boss)
    detail = generate(boss, 402)["detail"]
    assert "The job needs 100 units, one for each user, and 94 are left after the jobs that wait" in detail
    generate(boss, 402, userSegment="new")
    assert metered.sql("SELECT count(*), min(users_allowed), max(users_allowed) FROM generation_jobs") == [
        (8, 194, 894)
    ]
    # A job that is done and was not metered yet still counts; one that failed before it began does not.
    oldest = "id = (SELECT id FROM generation_jobs WHERE status = 'processing' ORDER BY created_at LIMIT 1)"
    done = "status = 'completed', users_done = 100, users_scored = 100, started_at = now(), finished_at = now()"
    metered.sql(f"UPDATE generation_jobs SET {done} WHERE {oldest}")
    generate(boss, 402)
    metered.sql(f"UPDATE generation_jobs SET status = 'failed' WHERE {oldest}")
    generate(boss)
    generate(boss, 402)


def test_requests_at_once_do_not_pass_the_budget_together(metered: Backend) -> None:
    boss = person(metered, "boss", "admin")
    with ThreadPoolExecutor(12) as threads:
        answers = list(
            threads.map(
                lambda _: boss.post("/api/recommendations/generate", json=EXAMPLE).status_code,
                range(15),
            )
        )
    assert (answers.count(202), answers.count(402)) == (8, 7)


def test_the_new_users_of_a_plan_with_a_budget_are_counted_and_not_estimated(metered: Backend) -> None:
    boss = person(metered, "boss", "admin")
    metered.add_items({id_: {} for id_ in "abcde"})
    metered.sql("UPDATE usage_cycles SET units = 905")
    generate(boss, 402, userSegment="new")
    for number in range(5):
        metered.sql(
            "INSERT INTO interactions (tenant_id, id, user_id, item_id, interaction_type, occurred_at) "
            "SELECT 'shop', gen_random_uuid(), %s, 'a', 'view', now() FROM generate_series(1, 5)",
            [f"u{number}"],
        )
    generate(boss, 202, userSegment="new")


def test_a_waiting_job_is_told_what_the_budget_allows_after_those_before_it(metered: Backend) -> None:
    boss = person(metered, "boss", "admin")
    jobs = [generate(boss)["jobId"] for _ in range(2)]
    metered.sql("UPDATE usage_cycles SET units = 850")

    def allowed() -> list[Any]:
        rows = dict(metered.sql("SELECT id::text, users_allowed FROM generation_jobs"))
        return [rows[id_] for id_ in jobs]

    wait_until("both to be told", lambda: allowed() == [150, 50])
    metered.sql("UPDATE generation_jobs SET users_done = 60, users_scored = 60 WHERE id = %s", [jobs[0]])
    wait_until("the users that are done to be taken off", lambda: allowed() == [90, 50])
    subscribe(metered, "unlimited")
    wait_until("there to be no bound", lambda: allowed() == [None, None])


def test_the_routes_are_described_with_examples_and_their_errors(backend: Backend) -> None:
    paths = backend.client.get("/openapi.json").json()["paths"]
    described = {
        (method, path): operation
        for path, operations in paths.items()
        if path.startswith("/api/recommendations")
        for method, operation in operations.items()
    }
    own = {
        ("get", "/api/recommendations"): {"200", "403"},
        ("get", "/api/recommendations/my"): {"200"},
        ("get", "/api/recommendations/{recommendation_id}"): {"200", "403", "404"},
        ("delete", "/api/recommendations/{recommendation_id}"): {"204", "403", "404"},
        ("post", "/api/recommendations/generate"): {"202", "403"},
        ("get", "/api/recommendations/jobs/{job_id}"): {"200", "403", "404"},
    }
    assert described.keys() == own.keys()
    assert all(answers <= set(described[route]["responses"]) for route, answers in own.items())
    assert all(operation["summary"] for operation in described.values())
    schemas = backend.client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("GenerateRequest", "GenerationAccepted", "GenerationStatus", "ShownOut", "RecordOut"):
        assert schemas[name].get("examples"), name
