"""Memory of API and model server under steady load."""

import json
import time
from typing import Any

import numpy as np

from tests.benchmarks.latency.fresh import INTERACTIONS
from tests.benchmarks.processor_time import memory_of, processes
from tests.benchmarks.reliability.answers import counts, recommendations, traffic
from tests.benchmarks.reliability.database import an_item
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique

SAMPLES = 60
USERS = 200
GROWTH = 0.05
"""Of the last third over the middle one. The first third fills caches and pools."""
MEGABYTE = 2**20


def memory(demo: RunningDemo, tenant: Tenant, memory_seconds: float, **_: Any) -> dict[str, Any]:
    """Recommendations of three families, and every fourth request an interaction of a user of this run."""
    item, prefix = an_item(demo, tenant), unique("memory")
    users = demo.users(tenant, USERS)
    kinds = [recommendations(users, family) for family in ("hybrid", "deep-learning", "collaborative")]
    kinds.append(
        [
            (INTERACTIONS, json.dumps({"userId": f"{prefix}-{n}", "itemId": item, "interactionType": "view"}))
            for n in range(len(users))
        ]
    )
    requests = [request for group in zip(*kinds, strict=True) for request in group]
    sampled: dict[str, list[float]] = {"api": [], "serving": []}
    with traffic(demo.api_url, tenant.headers, requests) as seen:
        for _sample in range(SAMPLES):
            time.sleep(memory_seconds / SAMPLES)
            for program, values in sampled.items():
                values.append(sum(map(memory_of, processes(demo.paths, program))) / MEGABYTE)
    found: dict[str, Any] = {**counts(seen), "seconds": memory_seconds}
    verdicts = {"none failed": found["cut_off"] + found["other"] + found["status_503"] == 0}
    for program, values in sampled.items():
        first, middle, last = (float(np.median(part)) for part in np.array_split(values, 3))
        found[program] = {"start_mb": values[0], "first_mb": first, "middle_mb": middle, "last_mb": last}
        found[program] = {name: round(value, 1) for name, value in found[program].items()}
        verdicts[f"memory of {program} flat"] = last <= middle * (1 + GROWTH)
    return {**found, "verdicts": verdicts}
