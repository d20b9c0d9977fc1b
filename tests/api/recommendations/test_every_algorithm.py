"""The parameters of a request hold for every algorithm, by the database's state at the request."""

from collections.abc import Callable
from typing import Any

import pytest

from serving.contracts.filters import parse_filter
from serving.contracts.messages import ALGORITHMS, MAX_COUNT
from tests.fixtures.backend import Backend
from tests.fixtures.filters import says
from tests.fixtures.releases import GENRES, ITEMS_PER_GENRE, item_id, small_dataset

COMEDIES = [item_id("comedy", number) for number in range(1, 5)]
HORRORS = [item_id("horror", number) for number in range(1, 5)]
CATALOGUE = dict(zip(small_dataset().items.ids, small_dataset().items.metadata, strict=True))


def answer(backend: Backend, algorithm: str, user: str = "ann", **more: Any) -> list[dict[str, Any]]:
    """The elements of an answer that is no fallback."""
    request = {"userId": user, "count": MAX_COUNT, "algorithm": algorithm, **more}
    response = backend.client.post("/api/v1/recommend", json=request)
    assert response.status_code == 200, response.text
    assert "X-Recommendation-Degraded" not in response.headers
    elements: list[dict[str, Any]] = response.json()
    items = [element["itemId"] for element in elements]
    assert len(items) == len(set(items)) <= request["count"]
    scores = [element["score"] for element in elements]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    return elements


def items(backend: Backend, algorithm: str, user: str = "ann", **more: Any) -> list[str]:
    return [element["itemId"] for element in answer(backend, algorithm, user, **more)]


def by_algorithm(what: Callable[[str], Any]) -> dict[str, Any]:
    return {algorithm: what(algorithm) for algorithm in ALGORITHMS}


def everywhere(value: Any) -> dict[str, Any]:
    return dict.fromkeys(ALGORITHMS, value)


def genres_of(listed: list[str]) -> set[str]:
    return {item.split("-")[0] for item in listed}


@pytest.fixture
def films(all_families: Backend) -> Backend:
    """Ann likes comedies."""
    all_families.interact("ann", *COMEDIES)
    return all_families


def test_a_filter_is_applied_before_the_list_is_cut_so_that_a_rare_category_fills_it(films: Backend) -> None:
    rare = {"genres": "western", "year": {"$gte": 1998}}
    expected = {item_id("western", 18), item_id("western", 19)}
    assert by_algorithm(lambda name: set(items(films, name, count=2, filter=rare))) == everywhere(expected)
    western = by_algorithm(lambda name: items(films, name, count=ITEMS_PER_GENRE, filter={"genres": "western"}))
    assert {name: (len(listed), genres_of(listed)) for name, listed in western.items()} == everywhere(
        (ITEMS_PER_GENRE, {"western"})
    )
    top = by_algorithm(lambda name: items(films, name, count=3, filter={"genres": "western"}))
    assert top == {name: listed[:3] for name, listed in western.items()}


@pytest.mark.parametrize(
    "condition",
    [
        {"title": "western western3"},
        {"genres": {"$in": ["horror", "nothing"]}},
        {"genres": {"$nin": ["horror", "film"]}},
        {"year": {"$gt": 1985, "$lte": 1990}},
        {"rating": {"$gte": 4, "$lt": 4.5}},
        {"colour": {"$exists": False}},
        {"$and": [{"genres": "comedy"}, {"colour": True}]},
        {"$or": [{"year": 1980}, {"year": 1999}]},
        {"$not": {"genres": "film"}},
        {"about.by": "Ann"},
        {"about.by": {"$ne": "Ann"}, "year": 1981},
    ],
    ids=str,
)
def test_a_filter_means_the_same_on_every_algorithm(films: Backend, condition: dict[str, Any]) -> None:
    catalogue = CATALOGUE | {"western-3": {**CATALOGUE["western-3"], "about": {"by": "Ann"}}}
    films.client.patch("/api/items/western-3", json={"metadata": {"about": {"by": "Ann"}}}).raise_for_status()
    expected = {item for item, metadata in catalogue.items() if says(parse_filter(condition), metadata)}
    assert by_algorithm(lambda name: set(items(films, name, filter=condition))) == everywhere(expected)


def test_excluded_items_are_left_out_and_others_take_their_places(films: Backend) -> None:
    top = by_algorithm(lambda name: items(films, name, count=10))
    for name, listed in top.items():
        rest = items(films, name, count=10, exclude=listed[:5])
        assert rest[:5] == listed[5:]
        assert len(rest) == 10
    many = [*CATALOGUE][:59] + [f"unknown-{number}" for number in range(941)]
    assert by_algorithm(lambda name: items(films, name, exclude=many)) == everywhere([[*CATALOGUE][59]])


def test_what_was_seen_is_left_out_as_the_request_says(films: Backend) -> None:
    films.interact("ann", *HORRORS[:2], type_="purchase")
    films.interact("ann", *HORRORS[2:], type_="view")
    seen = {"none": set(), "bought": set(HORRORS[:2]), "all": {*COMEDIES, *HORRORS}}
    for exclude_seen, left_out in seen.items():
        expected = everywhere(set(CATALOGUE) - left_out)
        assert by_algorithm(lambda name, e=exclude_seen: set(items(films, name, excludeSeen=e))) == expected
        films.sql("UPDATE tenants SET exclude_seen = %s", [exclude_seen])
        assert by_algorithm(lambda name: set(items(films, name))) == expected


def test_an_interaction_of_a_moment_ago_is_seen_and_counts(films: Backend) -> None:
    before = by_algorithm(lambda name: items(films, name, "new", count=10))
    films.interact("new", *HORRORS)
    after = by_algorithm(lambda name: items(films, name, "new", count=10))
    assert {name: after[name] != before[name] for name in ALGORITHMS} == everywhere(True)
    left = by_algorithm(lambda name: set(HORRORS) & set(items(films, name, "new", excludeSeen="all")))
    assert left == everywhere(set())


def test_session_items_count_for_known_and_unknown_users(films: Backend) -> None:
    session = {"sessionItems": HORRORS}
    for user in ("ann", "nobody"):
        without = by_algorithm(lambda name, u=user: _mean_place(items(films, name, u), "horror"))
        within = by_algorithm(lambda name, u=user: _mean_place(items(films, name, u, context=session), "horror"))
        assert {name: within[name] < without[name] for name in ALGORITHMS} == everywhere(True), (without, within)
    shown = by_algorithm(lambda name: set(items(films, name, "nobody", context=session, excludeSeen="all")))
    assert shown == everywhere(set(CATALOGUE) - set(HORRORS))
    assert films.sql("SELECT count(*) FROM users WHERE id = 'nobody'") == [(0,)]


def _mean_place(listed: list[str], genre: str) -> float:
    places = [place for place, item in enumerate(listed) if item.startswith(genre)]
    return sum(places) / len(places)


def _share(listed: list[str], genre: str) -> float:
    return sum(item.startswith(genre) for item in listed) / len(listed)


def test_a_user_without_history_is_answered_by_the_model(films: Backend) -> None:
    assert by_algorithm(lambda name: len(items(films, name, "nobody", count=10))) == everywhere(10)


def test_diversity_makes_the_items_of_a_list_less_alike(films: Backend) -> None:
    count = 8
    lists = {
        diversity: by_algorithm(lambda name, d=diversity: items(films, name, count=count, diversity=d))
        for diversity in (0.0, 0.5, 1.0)
    }
    assert lists[0.0] == by_algorithm(lambda name: items(films, name, count=count))
    for name in ALGORITHMS:
        assert all(len(lists[diversity][name]) == count for diversity in lists)
        assert lists[1.0][name] != lists[0.0][name]
        shares = {diversity: _share(lists[diversity][name], "comedy") for diversity in lists}
        assert shares[1.0] < shares[0.0], (name, shares)
    limited = by_algorithm(
        lambda name: items(films, name, count=count, diversity=0.7, filter={"genres": "western"}, exclude=["western-1"])
    )
    assert {name: (len(each), genres_of(each), "western-1" in each) for name, each in limited.items()} == everywhere(
        (count, {"western"}, False)
    )


def test_a_score_depends_on_the_item_alone_and_not_on_what_else_was_asked(films: Backend) -> None:
    for name in ALGORITHMS:
        scores = {element["itemId"]: element["score"] for element in answer(films, name)}
        assert set(scores) == set(CATALOGUE)
        others: list[dict[str, Any]] = [
            {"count": 5},
            {"filter": {"genres": "western"}},
            {"exclude": [*CATALOGUE][:30]},
            {"diversity": 0.6, "count": 10},
        ]
        for more in others:
            for element in answer(films, name, **more):
                assert element["score"] == pytest.approx(scores[element["itemId"]], abs=1e-6), (name, more)


def test_an_element_names_the_family_that_carried_it_and_true_evidence(films: Backend) -> None:
    for name in ALGORITHMS:
        elements = answer(films, name, count=20)
        allowed = {name} if name != "hybrid" else {"hybrid", "collaborative", "content-based", "popularity"}
        assert {element["algorithm"] for element in elements} <= allowed, name
        assert all(element["explanation"] for element in elements)
        evidence = [element["evidence"] for element in elements]
        assert all(len(each) <= 3 and set(each) <= set(COMEDIES) for each in evidence)
    assert all(element["evidence"] == [] for name in ALGORITHMS for element in answer(films, name, "nobody"))


def test_items_hidden_edited_added_and_deleted_a_moment_ago_count(films: Backend) -> None:
    new = {"title": "western westernmost", "genres": ["western"], "year": 1990, "rating": 2, "colour": True}
    films.add_items({"western-new": new})
    films.client.patch("/api/items/horror-1", json={"metadata": {"genres": ["western"]}}).raise_for_status()
    films.client.patch("/api/items/western-1", json={"isActive": False}).raise_for_status()
    films.client.delete("/api/items/western-2").raise_for_status()
    kept = {item_id("western", number) for number in range(ITEMS_PER_GENRE)} - {"western-1", "western-2"}
    shown = by_algorithm(lambda name: set(items(films, name, filter={"genres": "western"})))
    # Whether a model that knows items by their interactions alone can rank one that has none is the model's affair.
    assert {name: each - {"western-new"} for name, each in shown.items()} == everywhere(kept | {"horror-1"})
    assert "western-new" in shown["content-based"] and "western-new" in shown["hybrid"]
    films.client.patch("/api/items/western-1", json={"isActive": True}).raise_for_status()
    again = by_algorithm(lambda name: "western-1" in items(films, name, filter={"genres": "western"}))
    assert again == everywhere(True)


def test_similar_takes_a_filter_and_exclusions(films: Backend) -> None:
    def similar(**more: Any) -> list[str]:
        found = films.post("/api/v1/similar", {"itemId": "western-3", "count": MAX_COUNT, **more})
        return [element["itemId"] for element in found]

    everything = similar()  # that is like it at all
    assert "western-3" not in everything and len(everything) > 20
    assert similar(exclude=["western-4", "horror-1"]) == [i for i in everything if i not in {"western-4", "horror-1"}]
    for genre in GENRES:
        of_genre = [item for item in everything if item.startswith(genre)]
        assert similar(filter={"genres": genre}) == of_genre
        assert similar(filter={"genres": genre}, count=2) == of_genre[:2]
    films.client.patch("/api/items/western-4", json={"isActive": False}).raise_for_status()
    assert similar() == [item for item in everything if item != "western-4"]
