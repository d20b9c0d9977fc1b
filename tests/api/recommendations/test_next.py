"""`recommend/next`: further pages of an answer, from whatever process, without an item twice."""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.recommendations import answer_ids, impressions, pages
from api.recommendations.answer_ids import new_recommendation_id
from api.recommendations.history import HistoryReader
from serving.contracts.messages import ALGORITHMS, MAX_COUNT
from tests.fixtures.backend import Backend
from tests.fixtures.portal import Portal
from tests.fixtures.releases import GENRES, ITEMS_PER_GENRE, item_id
from tests.fixtures.usage import units_of

CATALOGUE = [item_id(genre, number) for genre in GENRES for number in range(ITEMS_PER_GENRE)]
RECOMMEND, NEXT = "/api/v1/recommend", "/api/v1/recommend/next"
ID, RELEASE, DEGRADED = "X-Recommendation-Id", "X-Model-Release", "X-Recommendation-Degraded"


def ask(backend: Backend, **more: Any) -> httpx.Response:
    answer = backend.client.post(RECOMMEND, json={"userId": "ann", "count": 10, **more})
    assert answer.status_code == 200, answer.text
    return answer


def follow(backend: Backend, answer: httpx.Response | str, count: int = 10, status: int = 200) -> httpx.Response:
    id_ = answer if isinstance(answer, str) else answer.headers[ID]
    page = backend.client.post(NEXT, json={"recommendationId": id_, "count": count})
    assert page.status_code == status, page.text
    return page


def elements(*answers: httpx.Response) -> list[dict[str, Any]]:
    return [element for answer in answers for element in answer.json()]


def items(*answers: httpx.Response) -> list[str]:
    return [element["itemId"] for element in elements(*answers)]


def random_request(source: random.Random) -> dict[str, Any]:
    """Parameters of a request without diversity: each is there or not."""
    every = {
        "filter": {"genres": {"$in": source.sample(GENRES, 2)}},
        "exclude": source.sample(CATALOGUE, 7),
        "excludeSeen": source.choice(("none", "bought", "all")),
        "context": {"sessionItems": source.sample(CATALOGUE, 2)},
    }
    return {name: value for name, value in every.items() if source.random() < 0.5}


def assert_pages_are_the_list_cut(backend: Backend, algorithm: str, seed: int) -> None:
    """Ten pages equal one answer of 100, from whichever id the next page is asked for.

    Scores are rounded to six digits. Evidence that weighs next to nothing may depend on what else is in the list.
    """
    source = random.Random(seed)
    user = f"user-{seed}"
    backend.interact(user, *source.sample(CATALOGUE, source.randrange(1, 9)))
    request = {"userId": user, "algorithm": algorithm, **random_request(source)}
    whole = ask(backend, count=MAX_COUNT, **request)
    answers = [ask(backend, **request)]
    sizes = [10] * 9 if seed % 2 else [source.randrange(1, 25) for _ in range(9)]
    for size in sizes:
        answers.append(follow(backend, source.choice(answers), size))
    cut, expected = elements(*answers), elements(whole)[: 10 + sum(sizes)]
    assert [one["itemId"] for one in cut] == [one["itemId"] for one in expected], (algorithm, request, sizes)
    assert [one["score"] for one in cut] == pytest.approx([one["score"] for one in expected], abs=2e-6)
    assert [one["algorithm"] for one in cut] == [one["algorithm"] for one in expected]
    assert len({answer.headers[ID] for answer in answers}) == 10
    for name in (RELEASE, DEGRADED):
        assert {answer.headers.get(name) for answer in answers} == {whole.headers.get(name)}


def test_the_pages_of_every_family_are_the_one_long_list_cut(all_families: Backend) -> None:
    for number, algorithm in enumerate(ALGORITHMS):
        for seed in range(3):
            assert_pages_are_the_list_cut(all_families, algorithm, 10 * number + seed)


@pytest.fixture
def shop(backend: Backend) -> Backend:
    """The same catalogue where no model server answers."""
    backend.add_items({id_: {"genres": [id_.split("-")[0]]} for id_ in CATALOGUE})
    backend.interact("crowd", *random.Random(7).choices(CATALOGUE, k=100))
    backend.sql("UPDATE tenants SET exclude_seen = 'none'")
    return backend


def test_the_pages_of_the_fallback_are_the_one_long_list_cut(shop: Backend) -> None:
    for seed in range(6):  # before popularity is first read
        shop.interact(f"user-{seed}", "comedy-1")
    for seed in range(6):
        source = random.Random(seed)
        request = {"userId": f"user-{seed}", "algorithm": source.choice(ALGORITHMS), **random_request(source)}
        whole, first = ask(shop, count=MAX_COUNT, **request), ask(shop, **request)
        answers = [first]
        for _ in range(9):
            answers.append(follow(shop, source.choice(answers)))
        assert elements(*answers) == elements(whole)
        assert {answer.headers[DEGRADED] for answer in answers} == {whole.headers[DEGRADED]}


def test_with_diversity_a_page_chooses_among_what_was_not_shown(films: Backend) -> None:
    first = ask(films, diversity=0.8, filter={"genres": "comedy"})
    second, third = follow(films, first, 7), follow(films, first, 7)
    shown = items(first, second, third)
    assert sorted(shown) == sorted(item_id("comedy", number) for number in range(ITEMS_PER_GENRE))
    assert items(second) == items(ask(films, count=7, diversity=0.8, filter={"genres": "comedy"}, exclude=items(first)))


def test_items_hidden_meanwhile_are_left_out(films: Backend) -> None:
    first, coming = ask(films), items(ask(films, count=MAX_COUNT))[10:20]
    films.client.patch(f"/api/items/{coming[0]}", json={"isActive": False}).raise_for_status()
    films.client.delete(f"/api/items/{coming[1]}").raise_for_status()
    assert not set(items(follow(films, first, MAX_COUNT))) & {*coming[:2], *items(first)}


def test_a_plain_answer_writes_nothing_for_its_pages(films: Backend) -> None:
    plain = [ask(films, algorithm=algorithm) for algorithm in ("hybrid", "collaborative")]
    asked = ask(films, algorithm="collaborative", exclude=["comedy-1"])
    films.client.portal.call(films.client.app.state.recommendations.impressions.flush)
    rows = films.sql("SELECT recommendation_id::text, number, request FROM recommendation_pages")
    assert rows == [(asked.headers[ID], 0, '{"algorithm":"collaborative","exclude":["comedy-1"]}')]
    assert all(items(follow(films, answer)) for answer in plain)


@contextmanager
def another_process(open_client: Any, backend: Backend) -> Iterator[Backend]:
    with open_client() as client:
        client.headers.update(backend.client.headers)
        yield Backend(client, backend.url, backend.tenant_id)


def test_any_process_can_answer_before_the_first_answer_is_written(shop: Backend, open_client: Any) -> None:
    whole = items(ask(shop, count=MAX_COUNT))
    with another_process(open_client, shop) as other:
        first = ask(shop)
        second = follow(other, first)
        third, fourth = follow(shop, second), follow(other, second)
    assert items(first, second, third, fourth) == whole[:40]


def test_callers_at_the_same_moment_get_different_pages(shop: Backend, open_client: Any) -> None:
    whole, first = items(ask(shop, count=MAX_COUNT)), ask(shop, count=12)
    with another_process(open_client, shop) as other, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda backend: follow(backend, first, 8), [shop, other] * 3))
    assert len({page.headers[ID] for page in found}) == 6
    assert sorted(items(first, *found)) == sorted(whole)


@pytest.mark.usefixtures("impatient")
def test_what_names_no_answer_of_the_last_hour_is_not_found(shop: Backend, tenants: Any, open_client: Any) -> None:
    first = ask(shop)
    page = follow(shop, first)
    similar = shop.client.post("/api/v1/similar", json={"itemId": CATALOGUE[0], "count": 5})
    for unknown in (str(uuid4()), str(new_recommendation_id()), similar.headers[ID]):
        follow(shop, unknown, status=404)
    with open_client() as client:
        client.headers.update(tenants.key(tenants.create("strangers")))
        for id_ in (first, page):
            follow(Backend(client, shop.url, "strangers"), id_, status=404)
    shop.sql(
        "UPDATE impressions SET created_at = now() - interval '61 minutes' WHERE recommendation_id = %s",
        [first.headers[ID]],
    )
    for id_ in (first, page):  # the hour is that of the first answer
        follow(shop, id_, status=404)
    for wrong in ({"recommendationId": "first", "count": 5}, {"recommendationId": str(uuid4()), "count": 101}):
        assert shop.client.post(NEXT, json=wrong).status_code == 400


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there yet is waited for hardly at all."""
    monkeypatch.setattr(answer_ids, "_PAUSES", (0.01,))


@pytest.fixture
def erase(shop: Backend, tenants: Any) -> Callable[[], None]:
    """Erases the user "crowd"."""
    portal = Portal(shop.client, tenants).at("10.0.0.1")  # a client without the key
    admin = portal.admin("shop")

    def erase() -> None:
        portal.client.delete("/api/users/crowd", headers=admin).raise_for_status()

    return erase


@pytest.mark.usefixtures("impatient")
def test_of_an_erased_user_there_is_no_page(shop: Backend, erase: Callable[[], None]) -> None:
    first = ask(shop, userId="crowd", exclude=["comedy-1"])
    page = follow(shop, first)
    seen = {"recommendationId": first.headers[ID], "items": [{"itemId": items(first)[0], "position": 1}]}
    assert shop.client.post("/api/v1/impressions", json=seen).status_code == 204
    erase()
    for id_ in (first, page):
        follow(shop, id_, status=404)
    assert shop.client.post("/api/v1/impressions", json=seen).status_code == 404
    for table in ("impressions", "recommendation_pages", "seen_impressions"):
        assert shop.sql(f"SELECT * FROM {table}") == []


@pytest.mark.usefixtures("impatient")
def test_of_a_user_who_is_erased_meanwhile_and_comes_back_there_is_no_page(
    shop: Backend, erase: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(shop, userId="crowd")
    follow(shop, first)
    view = HistoryReader.view

    def erase_and_come_back() -> None:
        erase()
        shop.interact("crowd", "comedy-1")

    async def view_before(self: HistoryReader, *arguments: Any) -> Any:
        found = await view(self, *arguments)
        await asyncio.to_thread(erase_and_come_back)
        return found

    monkeypatch.setattr(HistoryReader, "view", view_before)
    follow(shop, first, status=404)
    assert shop.sql("SELECT * FROM recommendation_pages") == shop.sql("SELECT * FROM impressions") == []


def test_a_sequence_has_bounds(shop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_SEQUENCE_ITEMS", 25)
    first = ask(shop)
    found = [follow(shop, first) for _ in range(3)]
    assert [len(page.json()) for page in found] == [10, 5, 0]
    assert found[-1].headers[ID] == first.headers[ID]
    monkeypatch.setattr(pages, "MAX_SEQUENCE_PAGES", 2)
    assert [len(follow(shop, first, 1).json()) for first in [ask(shop)] for _ in range(3)] == [1, 1, 0]
    assert len(shop.sql("SELECT * FROM recommendation_pages")) == 4


@pytest.mark.usefixtures("impatient")
def test_of_a_request_that_there_was_no_room_for_no_page_follows(
    shop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impressions, "MAX_REQUEST_CHARACTERS", 200)
    large = ask(shop, exclude=["x" * 200])
    small = ask(shop, exclude=["comedy-1"])
    follow(shop, large, status=404)
    assert "comedy-1" not in items(small, follow(shop, small, MAX_COUNT))


def test_old_rows_are_deleted(shop: Backend) -> None:
    for _ in range(2):
        follow(shop, ask(shop, exclude=["comedy-1"]))
    shop.sql("UPDATE recommendation_pages SET created_at = now() - interval '3 hours' WHERE number = 0")
    portal, state = shop.client.portal, shop.client.app.state
    portal.call(pages.delete_old_pages, state.database.pool)
    assert shop.sql("SELECT number FROM recommendation_pages") == [(1,), (1,)]


def test_a_page_costs_a_unit_and_what_was_seen_none(shop: Backend) -> None:
    before = units_of(shop)
    first = ask(shop)
    follow(shop, first)
    seen = {"recommendationId": first.headers[ID], "items": [{"itemId": items(first)[0], "position": 1}]}
    assert shop.client.post("/api/v1/impressions", json=seen).status_code == 204
    follow(shop, str(uuid4()), status=404)
    assert units_of(shop) == before + 2


def test_what_was_seen_is_stored_once(shop: Backend) -> None:
    first = ask(shop, count=3)
    a, b, c = items(first)

    def tell(*seen: tuple[str, int], id_: str = first.headers[ID]) -> httpx.Response:
        rows = [{"itemId": item, "position": position} for item, position in seen]
        return shop.client.post("/api/v1/impressions", json={"recommendationId": id_, "items": rows})

    for _ in range(2):
        assert tell((a, 1), (b, 2)).status_code == 204
    assert tell((b, 9), (c, 3)).status_code == 204
    stored = "SELECT tenant_id, recommendation_id::text, item_id, position FROM seen_impressions ORDER BY position"
    assert shop.sql(stored) == [("shop", first.headers[ID], item, place) for place, item in enumerate((a, b, c), 1)]
    refused = tell((c, 3), ("another", 1))
    assert refused.status_code == 400
    assert refused.json()["errors"] == [{"field": "items[1].itemId", "message": "is not an item of that answer"}]
    assert tell((a, 0)).status_code == tell().status_code == tell(*[(a, 1)] * 101).status_code == 400
    assert tell((a, 1), id_=str(uuid4())).status_code == 404
