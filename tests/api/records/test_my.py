"""`GET /api/recommendations/my`: live recommendations for the caller, which are recorded."""

from typing import Any

import pytest

from api.recommendations.history import HistoryReader
from tests.fixtures.backend import Backend
from tests.fixtures.meanwhile import hide_after
from tests.fixtures.people import person
from tests.fixtures.releases import item_id

HORRORS = [item_id("horror", number) for number in range(1, 5)]


def my(client: Any, **query: int) -> Any:
    answer = client.get("/api/recommendations/my", params=query)
    assert answer.status_code == 200, answer.text
    return answer


def test_the_answer_has_the_fields_of_the_contract(films: Backend) -> None:
    ann = person(films, "ann")
    answer = my(ann)
    body = answer.json()
    assert {name: body[name] for name in ("total", "page", "pageSize")} == {"total": 10, "page": 1, "pageSize": 10}
    assert len(body["data"]) == 10
    scores = [record["score"] for record in body["data"]]
    assert scores == sorted(scores, reverse=True) and 0 <= min(scores) <= max(scores) <= 1
    for record in body["data"]:
        assert record.keys() == {"id", "userId", "itemId", "score", "reason", "createdAt", "metadata"}
        assert record["userId"] == "ann"
        assert record["reason"]
        assert record["createdAt"].endswith("Z")
        assert record["metadata"] == films.client.get(f"/api/items/{record['itemId']}").json()["metadata"]
    assert answer.headers["X-Model-Release"]
    assert "X-Recommendation-Degraded" not in answer.headers


def test_it_is_live_and_for_the_tokens_user(films: Backend) -> None:
    ann, bob = person(films, "ann"), person(films, "bob")
    cold = [record["itemId"] for record in my(ann).json()["data"]]
    films.interact("ann", *HORRORS)
    warm = [record["itemId"] for record in my(ann).json()["data"]]
    assert warm != cold
    assert sum(item.startswith("horror") for item in warm) > 5
    assert [record["itemId"] for record in my(bob).json()["data"]] == cold


def test_what_was_shown_is_recorded_and_makes_one_impression(films: Backend) -> None:
    ann, boss = person(films, "ann"), person(films, "boss", "admin")
    answer = my(ann, pageSize=3)
    shown = answer.json()["data"]
    assert len(shown) == answer.json()["total"] == answer.json()["pageSize"] == 3
    recorded = boss.get("/api/recommendations", params={"userId": "ann"}).json()
    assert recorded["data"] == [{**record, "algorithm": "hybrid"} for record in shown]
    for record in shown:
        assert ann.get(f"/api/recommendations/{record['id']}").json()["itemId"] == record["itemId"]
    films.client.portal.call(films.client.app.state.recommendations.impressions.flush)
    ((id_, user, algorithm, items),) = films.sql(
        "SELECT recommendation_id::text, user_id, algorithm, item_ids FROM impressions"
    )
    assert (id_, user, algorithm) == (answer.headers["X-Recommendation-Id"], "ann", "hybrid")
    assert items == [record["itemId"] for record in shown]
    links = films.sql("SELECT DISTINCT recommendation_id::text, release, job_id FROM recommendations")
    assert links == [(id_, answer.headers["X-Model-Release"], None)]


def test_all_is_on_the_first_page_and_the_next_shows_nothing(films: Backend) -> None:
    ann = person(films, "ann")
    body = my(ann, page=2, pageSize=5).json()
    assert body == {"data": [], "total": 5, "page": 2, "pageSize": 5}
    films.client.portal.call(films.client.app.state.recommendations.impressions.flush)
    assert films.sql("SELECT count(*) FROM recommendations") == [(0,)]
    assert films.sql("SELECT count(*) FROM impressions") == [(0,)]


def test_seen_and_hidden_items_are_left_out(films: Backend) -> None:
    films.sql("UPDATE tenants SET exclude_seen = 'all' WHERE id = %s", [films.tenant_id])
    ann = person(films, "ann")
    films.interact("ann", *HORRORS)
    films.client.patch("/api/items/horror-5", json={"isActive": False}).raise_for_status()
    body = my(ann, pageSize=100).json()
    assert body["total"] == len(body["data"]) == 60 - len(HORRORS) - 1
    assert not {*HORRORS, "horror-5"} & {record["itemId"] for record in body["data"]}


def test_an_item_that_was_hidden_while_the_model_answered_is_not_shown(
    films: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = person(films, "ann")
    first = my(ann).json()["data"][0]["itemId"]
    hide_after(monkeypatch, HistoryReader, "view", films, first)
    again = [record["itemId"] for record in my(ann).json()["data"]]
    assert first not in again and len(again) == len(set(again)) == 10


@pytest.mark.parametrize("size", [1, 5])
def test_a_fallback_is_labelled_and_recorded_as_what_it_is(backend: Backend, size: int) -> None:
    backend.add_items({id_: {} for id_ in "abc"})
    backend.sql("UPDATE tenants SET exclude_seen = 'none'")
    backend.interact("bob", "b", "b", "c")
    ann, boss = person(backend, "ann"), person(backend, "boss", "admin")
    answer = my(ann, pageSize=size)
    assert answer.headers["X-Recommendation-Degraded"] == "serving-unavailable"
    assert "X-Model-Release" not in answer.headers
    items = [record["itemId"] for record in answer.json()["data"]]
    assert items == ["b", "c", "a"][:size]
    recorded = boss.get("/api/recommendations", params={"algorithm": "popularity"}).json()
    assert [record["itemId"] for record in recorded["data"]] == items
