"""`make bench-traces`: what traces cost, by processor time a request, at the default share and without any.

One process, whose recorder of spans is switched (`tests.benchmarks.untraced`); rounds take turns
(`tests.benchmarks.alternating`). The collector is a real one in this process.
"""

import json
import sys
from typing import Any

import httpx

from configs.settings import PathSettings
from tests.benchmarks.alternating import compare, prepare, serving
from tests.fixtures.collector import running_collector
from tests.fixtures.platform import Platform

APPLICATION = "tests.benchmarks.untraced:application"
STATES = ("traced", "untraced")
PATH = "/api/v1/recommend"
BODIES: list[dict[str, Any]] = [{"userId": f"user-{n}", "count": 10} for n in range(200)]
LEAST_RATIO = 0.95
"""Of processor time without traces over that with them."""
REQUESTS = 20_000


def main() -> None:
    """Print JSON on stdout; exit 1 when an answer failed or traces cost more than they may."""
    state = PathSettings().root / "bench-traces"
    state.mkdir(parents=True, exist_ok=True)
    with running_collector() as collector:
        platform = Platform.create(state, api={"LOG_LEVEL": "WARNING", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
        try:
            platform.boot()
            kept = state / "key"
            if not kept.exists():
                kept.write_text(prepare(platform))
            key = kept.read_text()
            with serving(platform, APPLICATION) as api:
                # The first request finds that no model server is there.
                answer = httpx.post(f"{api.url}{PATH}", headers={"X-API-Key": key}, json=BODIES[0], timeout=30)
                answer.raise_for_status()
                result = compare(api, key, PATH, BODIES, STATES)
        finally:
            platform.supervisor.stop()
    result["spans_that_arrived"] = len(collector.spans)
    enough = sum(result["requests"].values()) >= REQUESTS and bool(collector.spans)
    kept_bound = result["cpu_ratio"]["median"] >= LEAST_RATIO
    print(json.dumps({**result, "enough requests": enough, "under 5 %": kept_bound}, indent=2))
    sys.exit(0 if enough and kept_bound and not result["errors"] else 1)


if __name__ == "__main__":
    main()
