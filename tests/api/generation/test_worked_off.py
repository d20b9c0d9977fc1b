"""The result of a generation job, from the request to the records, compared with what `recommend` answers."""

from typing import Any

import pytest
from pydantic import SecretStr

from configs.postgres import DatabaseSettings
from pipelines.defs.generation.steps import process_jobs
from pipelines.resources import Installation
from tests.fixtures.backend import Backend
from tests.fixtures.model_server import ModelServer
from tests.fixtures.people import person
from tests.fixtures.releases import item_id


def work(films: Backend, server: ModelServer) -> None:
    installation = Installation(paths=server.paths, database=DatabaseSettings(url=SecretStr(films.url)))
    for generated in process_jobs(installation, films.tenant_id, lambda _done, _total: None):
        assert not generated.problem


@pytest.fixture
def readers(films: Backend) -> list[str]:
    """Users with histories of every kind: ties in time, repetitions, unknown items, own values, more than a bound."""
    films.interact("ann", *[item_id("horror", number) for number in range(4)], timestamp="2025-01-01T00:00:00Z")
    films.interact("ann", item_id("comedy", 1), item_id("horror", 2), type_="purchase", value=0.4)
    films.interact("bob", *[item_id("western", number) for number in range(20)], type_="view")
    films.interact("bob", item_id("western", 3), type_="purchase", timestamp="2024-01-01T00:00:00Z")
    films.client.post("/api/items", json={"id": "new", "metadata": {"title": "comedy"}}).raise_for_status()
    films.interact("cy", "new", item_id("comedy", 5))
    films.interact("dee", *[item_id("horror", number % 20) for number in range(250)], type_="click")
    films.client.patch("/api/items/comedy-7", json={"isActive": False}).raise_for_status()
    return ["ann", "bob", "cy", "dee"]


@pytest.mark.parametrize("exclude_seen", ["none", "bought", "all"])
@pytest.mark.parametrize("algorithm", ["hybrid", "collaborative", "content-based"])
def test_generated_lists_are_those_that_recommend_answers(
    films: Backend, films_server: ModelServer, readers: list[str], algorithm: str, exclude_seen: str
) -> None:
    films.sql("UPDATE tenants SET exclude_seen = %s WHERE id = %s", [exclude_seen, films.tenant_id])
    boss = person(films, "boss", "admin")
    asked = {"algorithm": algorithm, "userSegment": "all", "count": 8}
    job = boss.post("/api/recommendations/generate", json=asked).json()["jobId"]
    work(films, films_server)
    status = boss.get(f"/api/recommendations/jobs/{job}").json()
    assert status == {
        "jobId": job,
        "status": "completed",
        "progress": 1.0,
        "usersTotal": 5,
        "usersDone": 5,
        "recommendationsWritten": 40,
    }
    for user in [*readers, "boss"]:
        live = films.post("/api/v1/recommend", {"userId": user, "count": 8, "algorithm": algorithm})
        found = boss.get("/api/recommendations", params={"userId": user, "algorithm": algorithm}).json()
        assert [(record["itemId"], record["score"], record["reason"]) for record in found["data"]] == [
            (element["itemId"], element["score"], element["explanation"]) for element in live
        ]


def test_the_next_estimate_comes_from_this_job(films: Backend, films_server: ModelServer) -> None:
    boss = person(films, "boss", "admin")

    def estimate() -> Any:
        return boss.post("/api/recommendations/generate", json={"algorithm": "collaborative"}).json()

    first = estimate()["estimatedCompletionMs"]
    work(films, films_server)
    ((waited, worked),) = films.sql(
        "SELECT extract(epoch FROM started_at - created_at)::float8, "
        "extract(epoch FROM finished_at - started_at)::float8 FROM generation_jobs"
    )
    second = estimate()["estimatedCompletionMs"]
    assert second == pytest.approx((waited + worked) * 1000, abs=1)  # one user, as before
    assert second < first
