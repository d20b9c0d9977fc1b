"""An operation with many lists reads the database a few times, and gets what each list alone would get."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.graphql.documents import WITH_CREDENTIAL
from tests.api.graphql.calls import RECOMMENDATIONS, SIMILAR, data, run
from tests.fixtures.backend import Backend
from tests.fixtures.releases import GENRES, item_id

USERS = [f"user-{number}" for number in range(WITH_CREDENTIAL.aliases)]


def about(answers: dict[str, Any]) -> dict[str, Any]:
    """Scores to five digits: a model multiplies several queries in another order than one."""

    def rounded(element: dict[str, Any]) -> dict[str, Any]:
        return {**element, "score": pytest.approx(element["score"], abs=1e-5)}

    return {name: elements and [rounded(element) for element in elements] for name, elements in answers.items()}


@contextmanager
def connections_taken(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often a connection was asked for, or a statement was run, once the block has ended."""
    impressions = backend.client.app.state.recommendations.impressions
    backend.client.portal.call(impressions.flush)
    backend.client.portal.call(impressions._lock.acquire)  # no flush takes a connection meanwhile
    pool, taken = backend.client.app.state.database.pool, [0]

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            taken[0] += 1
            return method(*arguments)

        return counted

    with monkeypatch.context() as patch:
        for name in ("connection", "fetch"):
            patch.setattr(pool, name, counting(getattr(pool, name)))
        yield taken
    impressions._lock.release()


def test_many_users_are_read_together(films: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, user in enumerate(USERS):
        films.interact(user, *(item_id(GENRES[number % 3], each) for each in range(1, 4)))
    alone = {
        f"u{number}": data(films.client, RECOMMENDATIONS, userId=user, count=5)["getRecommendations"]
        for number, user in enumerate(USERS)
    }
    fields = (
        f'u{number}: getRecommendations(userId: "{user}", count: 5) {{ itemId score algorithm explanation }}'
        for number, user in enumerate(USERS)
    )
    query = f"{{ {' '.join(fields)} }}"
    with connections_taken(films, monkeypatch) as taken:
        together = data(films.client, query)
    assert together == about(alone)
    assert len({str(each) for each in together.values()}) > 1
    # The views, then whether the answers still hold. The client sends the first query by itself and the rest with it.
    assert taken[0] <= 4


def test_many_items_are_read_together_and_one_that_is_not_there_fails_alone(
    films: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [item_id(genre, number) for genre in GENRES for number in range(4)]
    alone = {
        f"i{number}": data(films.client, SIMILAR, itemId=item, count=3)["getSimilarItems"]
        for number, item in enumerate(items)
    }
    fields = [
        f'i{number}: getSimilarItems(itemId: "{item}", count: 3) {{ itemId score }}'
        for number, item in enumerate([*items, "nowhere"])
    ]
    with connections_taken(films, monkeypatch) as taken:
        body = run(films.client, f"{{ {' '.join(fields)} }}")
    assert body["data"] == about(alone | {f"i{len(items)}": None})
    assert [error["extensions"]["code"] for error in body["errors"]] == ["NOT_FOUND"]
    assert taken[0] <= 4


def test_a_user_who_is_asked_for_twice_is_read_once_and_answered_twice(films: Backend) -> None:
    films.interact("ann", item_id("comedy", 1))
    query = """{
        a: getRecommendations(userId: "ann", count: 3, algorithm: "collaborative") { itemId }
        b: getRecommendations(userId: "ann", count: 3, algorithm: "content-based") { itemId }
    }"""
    body = run(films.client, query)
    assert len(body["data"]["a"]) == len(body["data"]["b"]) == 3
    notes = body["extensions"]["recommendations"]
    assert notes["a"]["recommendationId"] != notes["b"]["recommendationId"]
