"""The main job, end to end: real processes, real data, HTTP only.

Load MovieLens 100K through the API, run the pipeline through Dagster, and hold the answers against what a person
would expect of models: they differ by user, by algorithm, and by the click made a moment ago.
"""

import json
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from tests.fixtures import movielens
from tests.fixtures.dagster_http import DagsterClient
from tests.fixtures.platform import Platform, wait_until

ALGORITHMS = ("collaborative", "content-based", "hybrid", "deep-learning")
TENANT = "films"
IMPORTED_AT_ONCE = 1000


@dataclass
class Films:
    """The loaded and trained tenant, seen through its API key."""

    platform: Platform
    http: httpx.Client

    def recommend(self, user: str, count: int = 10, **body: Any) -> httpx.Response:
        answer = self.http.post("/api/v1/recommend", json={"userId": user, "count": count, **body})
        assert answer.status_code == 200, answer.text
        return answer

    def listed(self, user: str, count: int = 10, **body: Any) -> list[str]:
        """Item ids of an answer that came from a model."""
        answer = self.recommend(user, count, **{"excludeSeen": "none", **body})
        assert "X-Recommendation-Degraded" not in answer.headers, answer.headers["X-Recommendation-Degraded"]
        return [each["itemId"] for each in answer.json()]

    def like(self, user: str, *items: str) -> None:
        for item in items:
            body = {"userId": user, "itemId": item, "interactionType": "like"}
            assert self.http.post("/api/v1/interactions", json=body).status_code == 201


def load(http: httpx.Client) -> None:
    """All items and interactions through the batch routes; every row must succeed."""
    items = movielens.items()
    events = movielens.interactions().to_dict("records")
    for path, rows, key in (
        ("/api/items/batch", items, "items"),
        ("/api/v1/interactions/batch", events, "interactions"),
    ):
        for start in range(0, len(rows), IMPORTED_AT_ONCE):
            answer = http.post(path, json={key: rows[start : start + IMPORTED_AT_ONCE]})
            assert answer.status_code == 200, answer.text
            assert answer.json()["failed"] == 0, answer.text


@pytest.fixture(scope="module")
def films(platform: Platform) -> Iterator[Films]:
    platform.start("mlflow", "serving", "api", "dagster")
    platform.cli("api", "create-tenant", "--id", TENANT, "--plan", "unlimited")
    key = platform.cli("api", "create-key", "--tenant", TENANT, "--name", "tests", "--rate-limit", "none")
    with httpx.Client(base_url=platform.api_url, headers={"X-API-Key": key}, timeout=30) as http:
        load(http)
        dagster = DagsterClient(platform.dagster_url)
        dagster.add_tenant(TENANT)
        assert dagster.wait(dagster.launch("retrain", TENANT), 1_500) == "SUCCESS", platform.log("dagster")[-5000:]
        films = Films(platform, http)
        wait_until(
            "the first answer of a model",
            lambda: "X-Recommendation-Degraded" not in films.recommend("1").headers,
        )
        yield films


def of_genre(genre: str, count: int, skip: int = 0) -> list[str]:
    return [item["id"] for item in movielens.items() if genre in item["metadata"]["genres"]][skip : skip + count]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_users_of_different_taste_get_different_lists(films: Films, algorithm: str) -> None:
    horror, children = f"horror-{algorithm}", f"children-{algorithm}"
    films.like(horror, *of_genre("Horror", 5))
    films.like(children, *of_genre("Children's", 5))
    first, second = films.listed(horror, algorithm=algorithm), films.listed(children, algorithm=algorithm)
    assert len(first) == len(set(first)) == 10
    assert first != second
    assert len(set(first) & set(second)) < 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_more_like_changes_the_order_at_once(films: Films, algorithm: str) -> None:
    user = f"order-{algorithm}"
    films.like(user, *of_genre("Horror", 5))
    before = films.listed(user, 50, algorithm=algorithm)
    outside = next(item for item in of_genre("Musical", 30) if item not in before)
    films.like(user, outside)
    after = films.listed(user, 50, algorithm=algorithm)
    assert [item for item in before if item in after] != [item for item in after if item in before]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_evidence_is_among_the_users_own_items(films: Films, algorithm: str) -> None:
    user, liked = f"evidence-{algorithm}", of_genre("Sci-Fi", 5)
    films.like(user, *liked)
    elements = films.recommend(user, algorithm=algorithm, excludeSeen="none").json()
    evidence = [item for element in elements for item in element["evidence"]]
    assert evidence
    assert set(evidence) <= set(liked)
    assert all(len(element["evidence"]) <= 3 for element in elements)


def test_the_four_algorithms_do_not_all_say_the_same(films: Films) -> None:
    lists = {tuple(films.listed("196", algorithm=algorithm)) for algorithm in ALGORITHMS}
    assert len(lists) > 1


def test_hybrid_lists_cover_more_than_a_tenth_of_the_catalogue(films: Films) -> None:
    users = movielens.interactions().userId.drop_duplicates().head(200)
    shown = {item for user in users for item in films.listed(user, algorithm="hybrid")}
    assert len(shown) > 168


def test_scores_are_in_the_unit_interval_and_do_not_increase(films: Films) -> None:
    for algorithm in ALGORITHMS:
        scores = [each["score"] for each in films.recommend("196", 100, algorithm=algorithm).json()]
        assert all(0 <= score <= 1 for score in scores)
        assert scores == sorted(scores, reverse=True)


def test_seen_items_are_left_out_by_the_tenants_default(films: Films) -> None:
    mine = set(movielens.interactions().query("userId == '196'").itemId)
    shown = {each["itemId"] for each in films.recommend("196", 100).json()}
    assert shown
    assert not shown & mine


def test_catalogue_changes_count_in_the_next_answer(films: Films) -> None:
    user, genre = "delta-user", {"genres": "Film-Noir", "era": "new"}
    films.like(user, *of_genre("Film-Noir", 5))
    new = {"id": "brand/new ✨", "metadata": {"title": "Double Shadow (1947)", "genres": ["Film-Noir"], "era": "new"}}
    assert films.listed(user, algorithm="content-based", filter=genre) == []
    assert films.http.post("/api/items", json=new).status_code == 201
    for algorithm in ("content-based", "hybrid", "deep-learning"):
        assert films.listed(user, algorithm=algorithm, filter=genre) == [new["id"]]
    path = "/api/items/brand%2Fnew%20%E2%9C%A8"
    assert films.http.patch(path, json={"metadata": {"era": "old"}}).status_code == 200
    assert films.listed(user, algorithm="content-based", filter=genre) == []
    shown = films.listed(user, algorithm="hybrid")[0]
    assert films.http.patch(f"/api/items/{shown}", json={"isActive": False}).status_code == 200
    assert shown not in films.listed(user, 100, algorithm="hybrid")
    assert films.http.patch(f"/api/items/{shown}", json={"isActive": True}).status_code == 200
    assert shown in films.listed(user, 100, algorithm="hybrid")
    assert films.http.delete(path).status_code == 204


def test_similar_items_share_more_than_chance(films: Films) -> None:
    answer = films.http.post("/api/v1/similar", json={"itemId": "50", "count": 5})  # Star Wars
    assert answer.status_code == 200, answer.text
    ids = [each["itemId"] for each in answer.json()]
    assert len(ids) == 5
    assert "50" not in ids
    genres = {item["id"]: set(item["metadata"]["genres"]) for item in movielens.items()}
    assert sum(bool(genres[each] & genres["50"]) for each in ids) >= 3
    assert films.http.post("/api/v1/similar", json={"itemId": "no-such", "count": 5}).status_code == 404


def test_every_model_is_in_mlflow_with_its_evaluation(films: Films) -> None:
    base = f"{films.platform.mlflow_url}/api/2.0/mlflow"
    for family in (*ALGORITHMS, "popularity", "item-knn"):
        model = httpx.get(f"{base}/registered-models/get", params={"name": f"{TENANT}.{family}"}).json()
        aliases = {alias["alias"]: alias["version"] for alias in model["registered_model"]["aliases"]}
        assert "champion" in aliases, family
        version = httpx.get(
            f"{base}/model-versions/get", params={"name": f"{TENANT}.{family}", "version": aliases["champion"]}
        ).json()["model_version"]
        run = httpx.get(f"{base}/runs/get", params={"run_id": version["run_id"]}).json()["run"]["data"]
        metrics = {metric["key"] for metric in run["metrics"]}
        assert any("ndcg" in name for name in metrics), metrics
        assert run["params"], family
        assert any("protocol" in tag["key"] for tag in run["tags"]), run["tags"]


def test_the_run_and_its_assets_are_in_dagster(films: Films) -> None:
    dagster = DagsterClient(films.platform.dagster_url)
    nodes = dagster.ask("{ assetNodes { assetKey { path } description partitionDefinition { name } } }")["assetNodes"]
    assert len(nodes) >= 10
    assert all(node["description"] for node in nodes)
    assert {node["partitionDefinition"]["name"] for node in nodes} == {"tenants"}


def test_one_trace_id_runs_through_api_and_serving(films: Films) -> None:
    trace = uuid.uuid4().hex
    films.http.post(
        "/api/v1/recommend",
        json={"userId": "196", "count": 3},
        headers={"traceparent": f"00-{trace}-{'1' * 16}-01"},
    )
    for program in ("api", "serving"):
        wait_until(f"the trace in {program}'s log", lambda program=program: trace in films.platform.log(program))
        lines = [line for line in films.platform.log(program).splitlines() if trace in line]
        assert all(json.loads(line)["trace_id"] == trace for line in lines)


def test_what_was_served_is_logged_with_its_release(films: Films) -> None:
    answer = films.recommend("196", 3)
    url = films.platform.paths.database_url_file.read_text().strip()
    query = "SELECT user_id, release, item_ids FROM impressions WHERE tenant_id = %s AND recommendation_id = %s"

    def row() -> tuple[Any, ...] | None:
        with psycopg.connect(url) as connection:
            return connection.execute(query, (TENANT, answer.headers["X-Recommendation-Id"])).fetchone()

    wait_until("the impression", lambda: row() is not None)
    assert row() == ("196", answer.headers["X-Model-Release"], [each["itemId"] for each in answer.json()])


def test_other_users_of_the_machine_can_read_nothing_of_the_state(films: Films) -> None:
    """The folder itself is the test's own, and its parents let PostgreSQL's user pass."""
    root = films.platform.paths.root
    paths = [path for path in root.rglob("*") if not path.is_symlink()]  # a link's own mode is not its target's
    assert [str(path.relative_to(root)) for path in paths if path.stat().st_mode & 0o077] == []
    assert (root / "lake").is_dir() and (root / "logs" / "api.log").is_file()


def test_without_the_model_server_a_labelled_fallback_answers_and_the_model_comes_back(films: Films) -> None:
    films.platform.control("stop", "serving")
    try:
        genre = {"genres": "Western"}
        answer = films.recommend("196", filter=genre, diversity=0.5)
        assert answer.headers["X-Recommendation-Degraded"].startswith("serving-unavailable")
        assert "diversity" in answer.headers["X-Recommendation-Degraded"]
        assert {each["algorithm"] for each in answer.json()} == {"popularity"}
        assert {each["itemId"] for each in answer.json()} <= set(of_genre("Western", 1000))
        assert httpx.get(f"{films.platform.api_url}/health/ready").json()["serving"] == "down"
    finally:
        films.platform.control("start", "serving")
    wait_until("the model's answer", lambda: "X-Recommendation-Degraded" not in films.recommend("196").headers)


@pytest.mark.parametrize("program", ["serving", "api", "postgres", "mlflow", "dagster"])
def test_a_killed_process_comes_back_by_itself(films: Films, program: str) -> None:
    before = int(films.platform.control("pid", program))
    os.kill(before, signal.SIGKILL)
    wait_until("a new process", lambda: films.platform.control("pid", program).strip() not in {str(before), "0"})
    films.platform.start("api", "serving", "dagster", "mlflow")

    def model_answers() -> bool:
        answer = films.http.post("/api/v1/recommend", json={"userId": "196", "count": 3})
        return answer.status_code == 200 and "X-Recommendation-Degraded" not in answer.headers

    wait_until("the model's answer", model_answers)
