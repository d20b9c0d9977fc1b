"""`recommend` and `similar` with a real model server, by the database's state at the request."""

import pytest

from api.items.catalogue import CatalogueReader
from api.recommendations.history import HistoryReader
from serving.contracts.messages import MAX_COUNT
from tests.fixtures.backend import Backend
from tests.fixtures.meanwhile import hide_after
from tests.fixtures.releases import item_id

COMEDIES = [item_id("comedy", number) for number in range(1, 5)]
HORRORS = [item_id("horror", number) for number in range(1, 5)]


def recommended(backend: Backend, user: str, **more: object) -> list[str]:
    request = {"userId": user, "count": 10, "algorithm": "collaborative", **more}
    response = backend.client.post("/api/v1/recommend", json=request)
    assert response.status_code == 200, response.text
    assert "X-Recommendation-Degraded" not in response.headers
    assert response.headers["X-Model-Release"]
    return [element["itemId"] for element in response.json()]


def genre_share(items: list[str], genre: str) -> float:
    return sum(item.startswith(genre) for item in items) / len(items)


def test_an_interaction_of_a_moment_ago_changes_the_next_answer(films: Backend) -> None:
    cold = recommended(films, "new")
    films.interact("new", *HORRORS)
    warm = recommended(films, "new")
    assert warm != cold
    assert genre_share(warm, "horror") > 0.5
    films.interact("new", *COMEDIES)
    assert recommended(films, "new") != warm


def test_an_element_has_the_fields_of_the_contract(films: Backend) -> None:
    films.interact("ann", *COMEDIES)
    answer = films.post("/api/v1/recommend", {"userId": "ann", "count": 5, "algorithm": "collaborative"})
    scores = [element["score"] for element in answer]
    assert scores == sorted(scores, reverse=True) and 0 <= min(scores) <= max(scores) <= 1
    for element in answer:
        assert element.keys() == {"itemId", "score", "algorithm", "explanation", "evidence"}
        assert element["algorithm"] == "collaborative"
        assert element["explanation"]
        assert len(element["evidence"]) <= 3 and set(element["evidence"]) <= set(COMEDIES)
    assert any(element["evidence"] for element in answer)


def test_session_items_count_like_events_whoever_asks(films: Backend) -> None:
    session = {"sessionItems": HORRORS}
    assert genre_share(recommended(films, "nobody", context=session), "horror") > 0.5
    films.interact("ann", *COMEDIES)
    assert recommended(films, "ann", context=session) != recommended(films, "ann")


def test_exclude_exclude_seen_and_filter_hold(films: Backend) -> None:
    films.interact("ann", *COMEDIES[:2], type_="purchase")
    films.interact("ann", *COMEDIES[2:], type_="view")
    everything = {"count": MAX_COUNT}
    assert set(COMEDIES) <= set(recommended(films, "ann", **everything))
    assert not set(COMEDIES[:2]) & set(recommended(films, "ann", **everything, excludeSeen="bought"))
    assert set(COMEDIES[2:]) <= set(recommended(films, "ann", **everything, excludeSeen="bought"))
    assert not set(COMEDIES) & set(recommended(films, "ann", **everything, excludeSeen="all"))
    assert "horror-1" not in recommended(films, "ann", **everything, exclude=["horror-1"])
    assert genre_share(recommended(films, "ann", filter={"genres": "western"}), "western") == 1


def test_items_added_edited_hidden_and_deleted_a_moment_ago_count(films: Backend) -> None:
    new = {"title": "western westernmost", "genres": ["western"], "year": 1990, "rating": 2, "colour": True}
    films.add_items({"western-new": new})
    films.client.patch("/api/items/horror-1", json={"metadata": {"genres": ["western"]}}).raise_for_status()
    films.client.patch("/api/items/western-1", json={"isActive": False}).raise_for_status()
    films.client.delete("/api/items/western-2").raise_for_status()
    westerns = recommended(films, "ann", count=MAX_COUNT, filter={"genres": "western"}, algorithm="content-based")
    expected = {item_id("western", number) for number in range(20)} - {"western-1", "western-2"}
    assert set(westerns) == expected | {"western-new", "horror-1"}
    assert len(westerns) == len(set(westerns))


def test_similar_finds_the_like_and_leaves_the_item_out(films: Backend) -> None:
    answer = films.post("/api/v1/similar", {"itemId": "western-3", "count": 8})
    items = [element["itemId"] for element in answer]
    assert "western-3" not in items
    assert genre_share(items, "western") > 0.7
    assert all(element.keys() == {"itemId", "score"} for element in answer)
    films.post("/api/v1/similar", {"itemId": "no-such", "count": 8}, status=404)


def test_an_algorithm_that_the_release_lacks_is_a_labelled_fallback(films: Backend) -> None:
    response = films.client.post("/api/v1/recommend", json={"userId": "a", "count": 3, "algorithm": "deep-learning"})
    assert response.status_code == 200
    assert response.headers["X-Recommendation-Degraded"] == "no-model"
    assert [element["algorithm"] for element in response.json()] == ["popularity"] * 3


def test_what_was_shown_is_logged_under_its_id(films: Backend) -> None:
    films.interact("ann", *COMEDIES)
    request = {"userId": "ann", "count": 3, "algorithm": "collaborative"}
    response = films.client.post("/api/v1/recommend", json=request)
    films.client.portal.call(films.client.app.state.recommendations.impressions.flush)
    ((tenant, user, algorithm, release, degraded, items, scores),) = films.sql(
        "SELECT tenant_id, user_id, algorithm, release, degraded, item_ids, scores FROM impressions "
        "WHERE recommendation_id = %s",
        [response.headers["X-Recommendation-Id"]],
    )
    assert (tenant, user, algorithm, degraded) == (films.tenant_id, "ann", "collaborative", None)
    assert release == response.headers["X-Model-Release"]
    assert items == [element["itemId"] for element in response.json()]
    assert scores == pytest.approx([element["score"] for element in response.json()], abs=1e-5)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"count": 5}, "userId"),
        ({"userId": "", "count": 5}, "userId"),
        ({"userId": "a\u0000b", "count": 5}, "userId"),
        ({"userId": "x" * 257, "count": 5}, "userId"),
        ({"userId": "a"}, "count"),
        ({"userId": "a", "count": 0}, "count"),
        ({"userId": "a", "count": 101}, "count"),
        ({"userId": "a", "count": "5"}, "count"),
        ({"userId": "a", "count": 5, "algorithm": "magic"}, "algorithm"),
        ({"userId": "a", "count": 5, "excludeSeen": "some"}, "excludeSeen"),
        ({"userId": "a", "count": 5, "diversity": 1.5}, "diversity"),
        ({"userId": "a", "count": 5, "exclude": ["x"] * 1001}, "exclude"),
        ({"userId": "a", "count": 5, "exclude": [1]}, "exclude.0"),
        ({"userId": "a", "count": 5, "filter": []}, "filter"),
        ({"userId": "a", "count": 5, "filter": {"year": {"$near": 1}}}, "filter.year.$near"),
        ({"userId": "a", "count": 5, "context": {"sessionItems": [""]}}, "context.sessionItems.0"),
    ],
)
def test_a_bad_request_is_400_and_names_the_field(backend: Backend, body: dict[str, object], field: str) -> None:
    problem = backend.post("/api/v1/recommend", body, status=400)
    assert [error["field"] for error in problem["errors"]] == [field]


def test_an_item_that_was_hidden_while_the_model_answered_is_replaced_by_another(
    films: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = recommended(films, "ann")
    hide_after(monkeypatch, HistoryReader, "view", films, before[0])
    after = recommended(films, "ann")
    assert before[0] not in after
    assert len(after) == len(set(after)) == 10
    hide_after(monkeypatch, CatalogueReader, "find", films, before[2])
    similar = [item["itemId"] for item in films.post("/api/v1/similar", {"itemId": before[1], "count": 59})]
    assert similar and not {before[0], before[2]} & set(similar)
