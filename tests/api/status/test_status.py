"""`GET /api/status`: the models that serve a tenant, and what it waits for before there are any."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from feature_store.analytics_sinks import ReleasedModel, record_release, roll_up_step
from serving.contracts.messages import ALGORITHMS
from tests.api.recommendations.conftest import films, films_server
from tests.fixtures.backend import Backend, backend
from tests.fixtures.people import person

__all__ = ["backend", "films", "films_server"]


@pytest.fixture(autouse=True)
def _threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST_MODEL_AFTER_INTERACTIONS", "10")


def status(client: TestClient) -> dict[str, Any]:
    answer = client.get("/api/status")
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("counted", [True, False])
def test_before_the_first_model_it_says_how_many_interactions_are_missing(backend: Backend, counted: bool) -> None:
    admin = person(backend, "boss", "admin")
    backend.add_items({"a": {}})
    backend.interact("ann", *["a"] * 3)
    if counted:
        roll_up_step(backend.url, "shop")
    found = status(admin)
    assert found["interactionsUntilFirstModel"] == 7
    assert [family["family"] for family in found["families"]] == list(ALGORITHMS)
    for family in found["families"]:
        assert family["message"] == "7 more interactions until the first model"
        assert (family["release"], family["version"], family["publishedAt"], family["ageSeconds"]) == (None,) * 4
    backend.interact("ann", *["a"] * 8)
    assert status(admin)["interactionsUntilFirstModel"] == 0
    assert status(admin)["families"][0]["message"].startswith("0 more interactions until the first model")


def test_a_published_release_is_named_while_the_model_server_is_away(backend: Backend) -> None:
    admin = person(backend, "boss", "admin")
    record_release(backend.url, "shop", "r1", [ReleasedModel("hybrid", "4", 0.9)])
    backend.sql("UPDATE release_models SET published_at = now() - interval '2 hours'")
    found = status(admin)
    assert (found["serving"], found["interactionsUntilFirstModel"]) == ("down", 0)
    by_family = {family["family"]: family for family in found["families"]}
    hybrid = by_family["hybrid"]
    assert (hybrid["release"], hybrid["version"], hybrid["message"]) == ("r1", "4", None)
    assert 7_200 <= hybrid["ageSeconds"] < 7_260
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", hybrid["publishedAt"])
    assert by_family["deep-learning"]["release"] is None
    assert "promotion" in by_family["deep-learning"]["message"]


def test_the_release_that_the_model_server_holds_is_named(films: Backend) -> None:
    found = status(person(films, "boss", "admin"))
    assert found["serving"] == "up"
    by_family = {family["family"]: family for family in found["families"]}
    assert {by_family[name]["version"] for name in ("hybrid", "collaborative", "content-based")} == {"1"}
    assert len({by_family[name]["release"] for name in ("hybrid", "collaborative", "content-based")}) == 1
    assert 0 <= by_family["hybrid"]["ageSeconds"] < 600
    assert by_family["deep-learning"]["release"] is None


def test_another_tenant_is_not_told_of_it(films: Backend, tenants: Any) -> None:
    tenants.create("rival")
    record_release(films.url, films.tenant_id, "r1", [ReleasedModel("hybrid", "1", 0.9)])
    found = status(person(films, "rival-boss", "admin", "rival"))
    assert found["serving"] == "degraded"
    assert all(family["release"] is None for family in found["families"])
