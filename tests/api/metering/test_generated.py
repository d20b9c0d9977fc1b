"""Users that a generation job scored are counted from the job's row, each once, whichever process counts."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from api.database.engine import Database
from api.metering.repository import add_generated
from feature_store.generation_sinks import generating
from feature_store.schemas import RECOMMENDATIONS
from tests.fixtures.backend import Backend
from tests.fixtures.people import person
from tests.fixtures.platform import wait_until

JOB = UUID(int=1)
NOTHING = RECOMMENDATIONS.empty_table()


def add_job(backend: Backend, id_: UUID = JOB, tenant: str = "shop") -> None:
    backend.sql(
        "INSERT INTO generation_jobs (tenant_id, id, algorithm, user_segment, count, users_total) "
        "VALUES (%s, %s, 'hybrid', 'all', 10, 0)",
        [tenant, id_],
    )


def meter(url: str, at_once: int = 1) -> list[int]:
    """What each of so many processes found to count."""

    async def run() -> list[int]:
        databases = [Database(url, pool_min=1) for _ in range(at_once)]
        for database in databases:
            await database.open()
        found = await asyncio.gather(*(add_generated(database.pool, datetime.now(UTC)) for database in databases))
        for database in databases:
            await database.close()
        return found

    return asyncio.run(run())


def units(backend: Backend) -> dict[str, int]:
    return dict(backend.sql("SELECT tenant_id, units FROM usage_cycles"))


@pytest.fixture
def rows(database_url: str, tenants: Any) -> Backend:
    """Only the database: no process is there that would count."""
    tenants.create("shop")
    return Backend(None, database_url, "shop")  # type: ignore[arg-type]


def test_each_scored_user_costs_a_unit_once_as_the_job_gets_on(rows: Backend) -> None:
    add_job(rows)
    with generating(rows.url, "shop") as generation:
        assert generation is not None
        job = generation.next_job()
        assert job is not None
        generation.begin(job, "r1", 7)
        assert meter(rows.url) == [0]
        generation.write(job, "r1", NOTHING, 4)
        assert (meter(rows.url), units(rows)) == ([4], {"shop": 4})
        assert (meter(rows.url), units(rows)) == ([0], {"shop": 4})
        generation.write(job, "r1", NOTHING, 3)
        generation.complete(job)
    assert (meter(rows.url), units(rows)) == ([3], {"shop": 7})
    assert meter(rows.url) == [0]


def test_what_a_crash_has_done_again_costs_once(rows: Backend) -> None:
    """Four of seven were scored and had nothing to be stored: after the crash they are scored once more."""
    add_job(rows)
    for left, scored in ((7, [4]), (7, [4, 3])):
        with generating(rows.url, "shop") as generation:
            assert generation is not None
            job = generation.next_job()
            assert job is not None
            generation.begin(job, "r1", left)
            for count in scored:
                generation.write(job, "r1", NOTHING, count)
                meter(rows.url)
    assert units(rows) == {"shop": 7}


def test_users_who_went_during_a_crash_cost_nothing(rows: Backend) -> None:
    """Four of seven were scored; of the other three one was deleted before the job went on."""
    add_job(rows)
    for left, scored in ((7, 4), (2, 2)):
        with generating(rows.url, "shop") as generation:
            assert generation is not None
            job = generation.next_job()
            assert job is not None
            generation.begin(job, "r1", left)
            meter(rows.url)
            generation.write(job, "r1", NOTHING, scored)
    meter(rows.url)
    assert rows.sql("SELECT users_done FROM generation_jobs") == [(7,)]
    assert units(rows) == {"shop": 6}


def test_processes_that_look_at_once_count_once(rows: Backend, tenants: Any) -> None:
    tenants.create("other")
    for n in range(1, 21):
        add_job(rows, UUID(int=n), "shop" if n % 2 else "other")
    rows.sql("UPDATE generation_jobs SET users_done = 5, users_scored = 5")
    assert sum(meter(rows.url, at_once=4)) == 100
    assert meter(rows.url) == [0]
    assert units(rows) == {"shop": 50, "other": 50}


def test_the_api_counts_by_itself(backend: Backend) -> None:
    boss = person(backend, "boss", "admin")
    assert boss.post("/api/recommendations/generate", json={"algorithm": "hybrid"}).status_code == 202
    backend.sql("UPDATE generation_jobs SET users_done = 3, users_scored = 3")
    wait_until("the scored users to cost", lambda: boss.get("/api/billing/usage").json()["requestsUsed"] == 3)
