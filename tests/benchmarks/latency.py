"""`make bench-latency`: what a recommendation costs on the whole path, beside a no-op of the same API process.

Real processes over MovieLens 100K: key check, rate limit, history read, model, log. For each number of clients the
no-op and the algorithms run one after another, so that the ratio of a pair is of one moment of one machine. The load
comes from a process of its own. The trained platform is kept under the state folder and used again.
"""

import json
import subprocess
import sys
import time
from typing import Any

from rich.console import Console

from configs.settings import PathSettings
from serving.contracts.messages import ALGORITHMS
from tests.benchmarks.load import Load
from tests.fixtures import movielens
from tests.fixtures.platform import Platform

TENANT = "bench"
CLIENTS = (1, 16, 32)
SECONDS = 6.0
WARM_UP_SECONDS = 1.5
NOOP = "no-op"

console = Console(stderr=True)


def prepare(platform: Platform) -> str:
    """A trained tenant and its API key; quick where an earlier benchmark left them."""
    platform.boot()
    platform.start("mlflow", "serving")
    kept = platform.paths.root / "bench.key"
    if not kept.exists():
        platform.cli("api", "create-tenant", "--id", TENANT, "--plan", "unlimited")
        key = platform.cli("api", "create-key", "--tenant", TENANT, "--name", "bench", "--rate-limit", "none")
        console.print("loading movielens-100k and training ...")
        platform.cli("api", "load-dataset", "movielens-100k", "--tenant", TENANT)
        platform.cli("pipelines", "run", "--tenant", TENANT)
        kept.write_text(key)
    platform.supervisor.stop_program("mlflow")
    platform.start("api")
    return kept.read_text()


def measure(platform: Platform, key: str, target: str, clients: int) -> dict[str, Any]:
    """One run of the load generator against the no-op or one algorithm."""
    users = movielens.interactions().userId.drop_duplicates()
    bodies = [json.dumps({"userId": user, "count": 10, "algorithm": target}) for user in users]
    load = Load(
        host="127.0.0.1",
        port=platform.ports.api,
        path="/benchmark/noop" if target == NOOP else "/api/v1/recommend",
        headers={"X-API-Key": key},
        bodies=["{}"] if target == NOOP else bodies,
        clients=clients,
        seconds=SECONDS,
        warm_up_seconds=WARM_UP_SECONDS,
    )
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.load"],
        input=json.dumps(load.__dict__),
        capture_output=True,
        text=True,
        check=True,
    )
    return {"target": target, "clients": clients, **json.loads(result.stdout)}


def main() -> None:
    """Print the table on stderr and JSON on stdout; exit 1 when an answer was degraded or failed."""
    state = PathSettings().root / "bench"
    state.mkdir(parents=True, exist_ok=True)
    platform = Platform.create(
        state, api={"BENCHMARK_ROUTES": "true", "LOG_LEVEL": "INFO"}, pipeline={"TRAIN_MAX_SECONDS": "45"}
    )
    results = []
    try:
        key = prepare(platform)
        time.sleep(2)
        for clients in CLIENTS:
            baseline = measure(platform, key, NOOP, clients)
            results.append(baseline)
            for algorithm in ALGORITHMS:
                result = measure(platform, key, algorithm, clients)
                ratio = result["requests_per_second"] / baseline["requests_per_second"]
                results.append({**result, "ratio_to_noop": round(ratio, 3)})
            for each in results[-len(ALGORITHMS) - 1 :]:
                console.print(each)
    finally:
        platform.supervisor.stop()
    degraded = sum(each["degraded"] for each in results)
    errors = sum(each["errors"] for each in results)
    print(json.dumps({"results": results, "degraded": degraded, "errors": errors}, indent=2))
    sys.exit(1 if degraded or errors else 0)


if __name__ == "__main__":
    main()
