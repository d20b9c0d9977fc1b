"""What the demo is measured beside: a route that does nothing, and the recommender that a team would write first.

Each is served by a process of its own with the options of our API, and loads nothing of ours but the data set:
`uvicorn tests.benchmarks.latency.baselines:noop` and `uvicorn --factory tests.benchmarks.latency.baselines:naive_peer`.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

from tests.fixtures.platform import ROOT, answers, free_ports, wait_until

OPTIONS = ("--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log", "--log-level", "warning")

noop = FastAPI()


@noop.post("/")
async def nothing() -> dict[str, str]:
    return {}


def naive_peer() -> FastAPI:
    """FastAPI and `implicit` in ten lines: no key, no database, no log, histories of the training only."""
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    from tests.fixtures import movielens

    app, events = FastAPI(), movielens.interactions()
    users, items = events.userId.astype("category"), events.itemId.astype("category")
    matrix = csr_matrix((events.value, (users.cat.codes, items.cat.codes)))
    model, numbers = AlternatingLeastSquares(factors=64), {user: n for n, user in enumerate(users.cat.categories)}
    model.fit(matrix, show_progress=False)

    @app.post("/")
    async def recommend(body: dict[str, Any]) -> list[dict[str, Any]]:
        user = numbers[body["userId"]]
        found, scores = model.recommend(user, matrix[user], N=body["count"])
        return [{"itemId": items.cat.categories[n], "score": float(s)} for n, s in zip(found, scores, strict=True)]

    return app


@contextmanager
def serving_baseline(name: str) -> Iterator[str]:
    """The URL of `noop` or `naive_peer` in a process of its own."""
    (port,) = free_ports(1)
    factory = ["--factory"] if name == "naive_peer" else []
    command = [sys.executable, "-m", "uvicorn", *factory, f"{__package__}.baselines:{name}", "--port", str(port)]
    process = subprocess.Popen([*command, *OPTIONS], cwd=ROOT)
    try:
        wait_until(name, lambda: answers(f"http://127.0.0.1:{port}/openapi.json"))
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()
