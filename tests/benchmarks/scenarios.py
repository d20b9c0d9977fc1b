"""`make bench-scenarios`: lists by random scenarios against a slow model, and what five rules cost, on the demo.

    python -m tests.benchmarks.scenarios [--users 1000] [--scenarios 20] [--seconds 5] [--rounds 3] [--state FOLDER]

Each user asks by each scenario, some for three pages. Every list must be the one that `slow_list` makes of the same
rankings, which are read by requests without a scenario. Processor time is that of API, model server and PostgreSQL, for
the same users with and without a scenario of five rules. JSON is on stdout; exit 1 where a must is not met.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psycopg
from rich.console import Console

from api.database.engine import Database
from api.database.scope import TenantScope
from api.lists.source import ListSource
from configs.settings import PathSettings
from serving.contracts.messages import ALGORITHMS
from tests.benchmarks.latency.measure import COUNT, RECOMMEND, measure, medians
from tests.benchmarks.running_demo import RunningDemo, Tenant, running_demo, unique
from tests.fixtures.filters import FilteredItems
from tests.fixtures.random_scenarios import RandomRecipes
from tests.fixtures.slow_scenarios import slow_list
from tests.fixtures.source_rankings import Ranked, SourceRankings

MUST_RATIO = 1.5
ATTEMPTS = 10
"""How often the pages of a user are asked for, where each time one of the answers is degraded."""
LISTS = ("popular", "latest")
FIVE_RULES = {
    "boosts": [{"filter": {"genres": "Comedy"}, "factor": 1.5}, {"filter": {"year": {"$lt": 1970}}, "factor": 0.5}],
    "expression": {"$add": [1, {"$multiply": [0.001, {"$number": "year"}]}]},
    "pins": [{"position": 3, "item": "50"}],
    "caps": [{"field": "year", "atMost": 2}],
}

console = Console(stderr=True)


class DegradedAnswerError(Exception):
    """An answer is not the models'."""


class Comparison:
    """Asks by scenarios, and compares with the slow model."""

    def __init__(self, demo: RunningDemo, tenant: Tenant, client: httpx.Client, random: Random) -> None:
        self.client, self.random = client, random
        with psycopg.connect(demo.database_url) as connection:
            rows = connection.execute(
                "SELECT id, metadata FROM items WHERE tenant_id = %s AND is_active AND deleted_at IS NULL", [tenant.id]
            ).fetchall()
            seen = connection.execute(
                "SELECT user_id, array_agg(DISTINCT item_id) FROM interactions WHERE tenant_id = %s GROUP BY 1",
                [tenant.id],
            ).fetchall()
        self.items = FilteredItems(dict(rows))
        self.seen: dict[str, set[str]] = {user: set(items) for user, items in seen}
        self.lists = asyncio.run(whole_lists(demo.database_url, tenant, len(self.items)))
        self.recipes = RandomRecipes(random, self.items, (*ALGORITHMS, *LISTS))
        self.compared: Counter[str] = Counter()  # lists by what their recipes and requests have
        self.right: Counter[str] = Counter()
        self.degraded = 0  # answers of popularity, as where the model server took too long
        self.wrong: list[dict[str, Any]] = []

    def ask(self, user: str, scenario: dict[str, Any], pages: int) -> None:
        """Compare the first pages of a user: again from the first one where an answer was degraded."""
        count, gone = self.random.choice([5, 10, 20]), self.random.sample(sorted(self.items), 2)
        own = self.recipes.some(self.recipes.condition, 0.2)
        body = {"userId": user, "count": count, "scenario": scenario["id"], "exclude": gone, "filter": own}
        for _ in range(ATTEMPTS):
            try:
                self._compare(scenario, body, pages)
            except DegradedAnswerError:
                self.degraded += 1
            else:
                return
        raise RuntimeError(
            f"{ATTEMPTS} degraded answers in a row: the machine is too busy, or the model server is down"
        )

    def _compare(self, scenario: dict[str, Any], asked: dict[str, Any], pages: int) -> None:
        user, count, gone, own = (asked[name] for name in ("userId", "count", "exclude", "filter"))
        path, body, shown = RECOMMEND, asked, list[str]()
        for page in range(pages):
            moments = [datetime.now(UTC)]
            response = self._post(path, body)
            moments.append(datetime.now(UTC))  # a window may open or close meanwhile
            got = [each["itemId"] for each in response.json()]
            left_out = [*gone, *shown]
            ranked = self.rankings(user, scenario, left_out, own)
            right = [slow_list(scenario, self.items, ranked, moments[0], count, len(shown), left_out, own)]
            if got not in right:
                right += [slow_list(scenario, self.items, ranked, moments[1], count, len(shown), left_out, own)]
            kinds = ["lists", *kinds_of(scenario, own), *(["pages"] if page else [])]
            self.compared.update(kinds)
            if got in right:
                self.right.update(kinds)
            else:
                self.wrong.append({"user": user, "scenario": scenario, "body": body, "got": got, "right": right[0]})
                if len(self.wrong) == 1:
                    console.print(json.dumps(self.wrong[0]), soft_wrap=True)
            shown += got
            path = f"{RECOMMEND}/next"
            body = {"recommendationId": response.headers["X-Recommendation-Id"], "count": count}

    def rankings(self, user: str, scenario: dict[str, Any], gone: list[str], own: Any) -> SourceRankings:
        """Of the sources, for one list."""

        def ask(body: dict[str, Any]) -> Ranked:
            answer = self._post(RECOMMEND, {"userId": user, **body}).json()
            return [(each["itemId"], each["score"]) for each in answer]

        exclusions = scenario["exclusions"]
        conditions = [own if own is not None else scenario["filter"] or {}]
        conditions += [{"$not": exclusions["filter"]}] if exclusions["filter"] else []
        seen = self.seen.get(user, set())
        lists = {name: [pair for pair in ranked if pair[0] not in seen] for name, ranked in self.lists.items()}
        return SourceRankings(ask, conditions, [*gone, *exclusions["items"]], lists)

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        response = self.client.post(path, json=body).raise_for_status()
        if "X-Recommendation-Degraded" in response.headers:
            raise DegradedAnswerError
        return response


def kinds_of(scenario: dict[str, Any], own: Any) -> list[str]:
    """What a list is made by: the rules of its recipe, windows among them, and filters of either side."""
    rules = ("boosts", "pins", "caps", "expression", "fallbacks")
    filtered = scenario["filter"] or scenario["exclusions"]["filter"] or own
    timed = any(each["windows"] for each in (scenario, *scenario["boosts"], *scenario["pins"], *scenario["caps"]))
    return [
        *(name for name in rules if scenario[name]),
        *(["filters"] if filtered else []),
        *(["windows"] if timed else []),
    ]


async def whole_lists(url: str, tenant: Tenant, count: int) -> dict[str, Ranked]:
    """Every item of the lists, in order."""
    database = Database(url, pool_min=1)
    await database.open()
    try:
        source = ListSource(database.pool)
        return {name: await source.top(TenantScope(tenant.id), name, count) for name in LISTS}
    finally:
        await database.close()


@contextmanager
def live_scenario(admin: httpx.Client, recipe: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A live scenario, as it is shown; it is deleted afterwards."""
    body = {"id": unique("bench"), "name": "benchmark", "status": "live", **recipe}
    made = admin.post("/api/scenarios", json=body).raise_for_status().json()
    try:
        yield made
    finally:
        admin.delete(f"/api/scenarios/{made['id']}").raise_for_status()


def compare(demo: RunningDemo, admin: httpx.Client, users: int, scenarios: int) -> dict[str, Any]:
    """How many lists were compared, and the wrong ones."""
    tenant = demo.tenant()
    known = demo.users(tenant, users)
    asking = [*known, *(f"nobody-{number}" for number in range(users - len(known)))]
    with httpx.Client(base_url=demo.api_url, headers=tenant.headers, timeout=60) as client:
        comparison = Comparison(demo, tenant, client, Random(15))
        for number in range(scenarios):
            with live_scenario(admin, comparison.recipes.recipe()) as scenario:
                for index, user in enumerate(asking):
                    comparison.ask(user, scenario, pages=3 if (index + number) % 10 == 0 else 1)
            lists = comparison.compared["lists"]
            wrong, degraded = len(comparison.wrong), comparison.degraded
            console.print(f"scenario {number + 1}: {lists} lists, {wrong} wrong, {degraded} asked again after degraded")
    right = {kind: f"{comparison.right[kind]} of {compared}" for kind, compared in comparison.compared.most_common()}
    return {
        "right": right,
        "wrong": len(comparison.wrong),
        "degraded": comparison.degraded,
        "first_wrong": comparison.wrong[:1],
    }


def cost(demo: RunningDemo, admin: httpx.Client, clients: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Processor milliseconds a request without a scenario and with one of five rules, in turns, and their ratio."""
    tenant = demo.tenant()
    users = demo.users(tenant, 900)
    with live_scenario(admin, FIVE_RULES) as scenario:
        bodies = {
            name: [json.dumps({"userId": user, "count": COUNT, **more}) for user in users]
            for name, more in (("plain", {}), ("scenario", {"scenario": scenario["id"]}))
        }
        turns = [
            {name: measure(demo, tenant, each, clients, seconds) for name, each in bodies.items()}
            for _ in range(rounds)
        ]
    found = {name: medians([turn[name] for turn in turns]) for name in bodies}
    failed = sum(each["errors"] + each["degraded"] for each in found.values())
    ratio = found["scenario"]["cpu_ms"]["total"] / found["plain"]["cpu_ms"]["total"]
    return {
        "clients": clients,
        **{name: each["cpu_ms"] for name, each in found.items()},
        "ratio": round(ratio, 3),
        "must": MUST_RATIO,
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scenarios", description="Compare and measure.")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--scenarios", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one round of load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--state", type=Path, default=PathSettings().root / "bench-latency", help="of the demo; kept")
    given = parser.parse_args()
    with running_demo(given.state) as demo, httpx.Client(base_url=demo.api_url, timeout=60) as admin:
        admin.headers.update(demo.admin())
        costs = [cost(demo, admin, clients, given.seconds, given.rounds) for clients in (1, 16)]
        console.print(costs)
        compared = compare(demo, admin, given.users, given.scenarios)
    print(json.dumps({**compared, "cost": costs}, indent=2))
    met = not compared["wrong"] and all(each["ratio"] <= MUST_RATIO and not each["failed"] for each in costs)
    console.print("all musts are met" if met else "a must is not met")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
