"""The clients' process seen from outside: starting and stopping it, and what its answers say."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tests.benchmarks.latency.measure import COUNT, RECOMMEND
from tests.benchmarks.reliability.traffic import CUT_OFF, TrafficPlan

CLIENTS = 32


@dataclass(frozen=True)
class Answer:
    """One answer, as a client saw it. Times are of the monotonic clock, which all processes share."""

    started: float
    milliseconds: float
    status: int
    request: tuple[str, str]  # path and body
    degraded: str  # the reason; empty where a model answered
    release: str
    retry_after: str
    body: str

    @property
    def ended(self) -> float:
        return self.started + self.milliseconds / 1000

    @property
    def from_a_model(self) -> bool:
        return self.status == 200 and not self.degraded


class Traffic:
    """Clients that send until `stop` is called."""

    def __init__(self, url: str, headers: dict[str, str], requests: Sequence[tuple[str, str]], clients: int) -> None:
        place = urlsplit(url)
        plan = TrafficPlan(place.hostname or "", place.port or 80, headers, list(requests), clients)
        self._requests = list(requests)
        command = [sys.executable, "-m", "tests.benchmarks.reliability.traffic"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan.__dict__) + "\n")
        self._process.stdin.flush()
        self.answers: list[Answer] = []
        self.sent_again = 0
        """Requests that were sent a second time, because a kept connection was closed before any answer."""
        self.refused = 0

    def stop(self) -> None:
        """Let what is in flight be answered, and read what the clients saw."""
        if self._process.returncode is not None:
            return
        said, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError("the clients ended by an error")
        told = json.loads(said)
        texts = told["texts"]
        self.sent_again, self.refused = told["sent_again"], told["refused"]
        self.answers = [
            Answer(at, ms, status, self._requests[number], texts[why], texts[release], texts[after], texts[body])
            for at, ms, status, number, why, release, after, body in told["answers"]
        ]


@contextmanager
def traffic(
    url: str, headers: dict[str, str], requests: Sequence[tuple[str, str]], clients: int = CLIENTS
) -> Iterator[Traffic]:
    """Traffic inside the block. Its answers can be read after the block."""
    found = Traffic(url, headers, requests, clients)
    try:
        time.sleep(2)  # the clients' process starts, and caches fill
        yield found
    finally:
        found.stop()


def recommendations(users: Sequence[str], algorithm: str = "hybrid") -> list[tuple[str, str]]:
    """One request for each user."""
    return [(RECOMMEND, json.dumps({"userId": user, "count": COUNT, "algorithm": algorithm})) for user in users]


def counts(found: Traffic) -> dict[str, Any]:
    """How many answers there were of each kind."""
    answers = found.answers
    return {
        "answers": len(answers),
        "from_models": sum(answer.from_a_model for answer in answers),
        "degraded": sum(bool(answer.degraded) for answer in answers),
        "status_503": sum(answer.status == 503 for answer in answers),
        "cut_off": sum(answer.status == CUT_OFF for answer in answers),
        "other": sum(answer.status not in (200, 201, 503, CUT_OFF) for answer in answers),
        "sent_again": found.sent_again,
        "refused_connections": found.refused,
    }


def milliseconds(answers: Sequence[Answer]) -> dict[str, float]:
    """Percentiles of the times of these answers; empty without any."""
    if not answers:
        return {}
    times = np.array([answer.milliseconds for answer in answers])
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 1),
        "p99_ms": round(float(np.percentile(times, 99)), 1),
        "max_ms": round(float(times.max()), 1),
    }
