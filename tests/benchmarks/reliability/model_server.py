"""The model server is killed, hangs, is slow, or answers garbage, while clients ask. Popularity answers meanwhile."""

import os
import secrets
import signal
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from configs.local.launch import survivors
from tests.benchmarks.processor_time import processes
from tests.benchmarks.reliability.answers import Answer, counts, milliseconds, recommendations, traffic
from tests.benchmarks.running_demo import RunningDemo, Tenant
from tests.fixtures.platform import answers, wait_until

USERS = 200
FALLBACK_MS = 250.0
RETURN_SECONDS = 5.0
AFTER_SECONDS = RETURN_SECONDS + 2
SLOWEST = 5
SLOW_SECONDS, AWAKE_SECONDS = 0.45, 0.05
"""A slow server: it sleeps and wakes in turn, so that an answer takes about half a second."""


def killed(demo: RunningDemo, tenant: Tenant, **_: Any) -> dict[str, Any]:
    """All of its processes at once (SIGKILL). The supervisor starts it again."""

    def trouble() -> None:
        for process in processes(demo.paths, "serving"):
            os.kill(process, signal.SIGKILL)
        wait_until("the models", lambda: _has_release(demo, tenant))

    return _through(demo, tenant, trouble)


def hung(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> dict[str, Any]:
    """It is stopped (SIGSTOP): connections are accepted, and nothing answers."""

    def trouble() -> None:
        _signal(demo, signal.SIGSTOP)
        time.sleep(seconds)
        _signal(demo, signal.SIGCONT)

    return _through(demo, tenant, trouble)


def slow(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> dict[str, Any]:
    """It gets a tenth of the time: stopped and continued in turn."""

    def trouble() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            _signal(demo, signal.SIGSTOP)
            time.sleep(SLOW_SECONDS)
            _signal(demo, signal.SIGCONT)
            time.sleep(AWAKE_SECONDS)

    return _through(demo, tenant, trouble)


def garbage(demo: RunningDemo, tenant: Tenant, seconds: float, **_: Any) -> dict[str, Any]:
    """Something else answers on its port: random bytes as a batch, errors, and what is not even HTTP."""

    def trouble() -> None:
        demo.control("stop", "serving")
        with _garbage_server(urlsplit(demo.serving_url).port or 80):
            time.sleep(seconds)
        demo.control("start", "serving")
        wait_until("the models", lambda: _has_release(demo, tenant))

    return _through(demo, tenant, trouble)


def _through(demo: RunningDemo, tenant: Tenant, trouble: Any) -> dict[str, Any]:
    """Traffic before, during and after the trouble, which ends when the model server is back."""
    with traffic(demo.api_url, tenant.headers, recommendations(demo.users(tenant, USERS))) as seen:
        time.sleep(2)
        began = time.monotonic()
        trouble()
        back = time.monotonic()
        time.sleep(AFTER_SECONDS)
    found = counts(seen)
    degraded = [answer for answer in seen.answers if answer.degraded]
    during = [answer for answer in seen.answers if began <= answer.ended and answer.started <= back]
    last = max((answer.started for answer in degraded), default=back)
    calm = [answer for answer in seen.answers if answer.ended < began]
    return {
        **found,
        "seconds_of_trouble": round(back - began, 2),
        "before": milliseconds(calm),
        "fallback": milliseconds(degraded),
        "all_during": milliseconds(during),
        "slowest_fallbacks": _slowest(degraded, began),
        "models_again_after_s": round(last - back, 2),
        "reasons": sorted({answer.degraded for answer in degraded}),
        "verdicts": {
            "none failed": found["from_models"] + found["degraded"] == found["answers"],
            "some degraded": bool(degraded),
            f"fallback within {FALLBACK_MS:g} ms": bool(degraded) and milliseconds(degraded)["max_ms"] <= FALLBACK_MS,
            f"models again within {RETURN_SECONDS:g} s": last - back <= RETURN_SECONDS,
        },
    }


def _slowest(answers: list[Answer], began: float) -> list[str]:
    """When the slowest answers were asked for, in seconds since the trouble began, and how long they took."""
    slowest = sorted(answers, key=lambda answer: -answer.milliseconds)[:SLOWEST]
    return [f"{answer.milliseconds:.0f} ms at {answer.started - began:.2f} s" for answer in slowest]


def _has_release(demo: RunningDemo, tenant: Tenant) -> bool:
    return answers(f"{demo.serving_url}/readyz") and tenant.id in demo.releases()


def _signal(demo: RunningDemo, number: signal.Signals) -> None:
    for process in survivors(f"serving@{demo.paths.root}"):
        os.kill(process, number)


@contextmanager
def _garbage_server(port: int) -> Iterator[None]:
    """Accepts connections on this port, and answers every request with one kind of garbage or another."""

    class Garbage(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            body, kind = secrets.token_bytes(200), secrets.randbelow(3)
            head = "HTTP/1.1 %d X\r\ncontent-type: application/vnd.msgpack\r\ncontent-length: 200\r\n\r\n"
            if self.request.recv(65_536):
                self.request.sendall(body if kind == 2 else (head % (200, 500)[kind]).encode() + body)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", port), Garbage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
