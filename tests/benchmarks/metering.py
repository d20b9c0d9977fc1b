"""`make bench-metering`: what metering costs, as the throughput with it over the throughput without it.

Metering is switched off and on in one process (`tests.benchmarks.unmetered`), and rounds take turns
(`tests.benchmarks.alternating`). The tenant has limits, so that each request is held against them. Next to a model's
answer, which takes longer than popularity's, metering costs less than it does here.
"""

import json
import sys
from typing import Any

import httpx

from configs.settings import PathSettings
from tests.benchmarks.alternating import ITEMS, compare, prepare, serving
from tests.fixtures.platform import Platform

APPLICATION = "tests.benchmarks.unmetered:application"
STATES = ("metered", "unmetered")
ROUTES: dict[str, list[dict[str, Any]]] = {
    "/api/v1/recommend": [{"userId": f"user-{n}", "count": 10} for n in range(200)],
    "/api/v1/interactions": [
        {"userId": f"user-{n}", "itemId": f"item-{n % ITEMS}", "interactionType": "view"} for n in range(200)
    ],
}


def main() -> None:
    """Print JSON on stdout; exit 1 when an answer failed."""
    state = PathSettings().root / "bench-metering"
    state.mkdir(parents=True, exist_ok=True)
    platform = Platform.create(state, api={"LOG_LEVEL": "WARNING"})
    try:
        platform.boot()
        kept = state / "key"
        if not kept.exists():
            kept.write_text(prepare(platform))
        key = kept.read_text()
        with serving(platform, APPLICATION) as api:
            for path, bodies in ROUTES.items():  # the first request finds that no model server is there
                answer = httpx.post(f"{api.url}{path}", headers={"X-API-Key": key}, json=bodies[0], timeout=30)
                answer.raise_for_status()
            results = [compare(api, key, path, bodies, STATES) for path, bodies in ROUTES.items()]
    finally:
        platform.supervisor.stop()
    errors = sum(each["errors"] for each in results)
    print(json.dumps({"results": results, "errors": errors}, indent=2))
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
