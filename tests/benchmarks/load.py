"""A closed-loop HTTP load generator: N clients, each with one connection, each sending its next request on an answer.

Plain asyncio streams, because a full client library costs more processor time per request than the API under test.
"""

import json
import random
import sys
import time
from asyncio import gather, open_connection
from asyncio.streams import StreamReader, StreamWriter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop


@dataclass(frozen=True)
class Load:
    """What one run sends."""

    host: str
    port: int
    path: str
    headers: dict[str, str]
    bodies: list[str]  # all clients together cycle through them
    clients: int
    seconds: float  # of the whole run, unless every body has been sent `rounds` times before
    warm_up_seconds: float = 0.0
    before_path: str = ""  # where each turn sends something else first, whose time does not count
    before_bodies: list[list[str]] = field(default_factory=list)  # by body; each turn draws one of them
    rounds: int | None = None  # None: no bound


async def run(load: Load) -> dict[str, Any]:
    """Requests a second, latency percentiles in milliseconds, and counts of degraded and failed answers."""
    requests = [_request(load, load.path, body) for body in load.bodies]
    before = [[_request(load, load.before_path, body) for body in bodies] for bodies in load.before_bodies]
    draw = random.Random(0)
    latencies: list[float] = []
    counts = {"degraded": 0, "errors": 0}
    turns: Iterator[int] = iter(range(sys.maxsize if load.rounds is None else load.rounds * len(requests)))
    begin = time.perf_counter() + load.warm_up_seconds
    end = begin + load.seconds

    async def client() -> None:
        reader, writer = await open_connection(load.host, load.port)
        for turn in turns:
            number = turn % len(requests)
            if before:
                head, _ = await exchange(reader, writer, draw.choice(before[number]))
                counts["errors"] += not head.startswith(b"http/1.1 2")
            started = time.perf_counter()
            if started >= end:
                break
            head, _ = await exchange(reader, writer, requests[number])
            if started >= begin:
                latencies.append(time.perf_counter() - started)
                counts["degraded"] += b"x-recommendation-degraded" in head
                counts["errors"] += not head.startswith(b"http/1.1 2")
        writer.close()

    await gather(*(client() for _ in range(load.clients)))
    took = time.perf_counter() - begin
    milliseconds = np.array(latencies) * 1000
    return {
        "requests": len(latencies),
        "requests_per_second": round(len(latencies) / took, 1),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 2),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 2),
        "max_ms": round(float(milliseconds.max()), 2),
        **counts,
    }


async def exchange(reader: StreamReader, writer: StreamWriter, request: bytes) -> tuple[bytes, bytes]:
    """Send one request; its answer's status line and headers in small letters, and its body."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return head, await reader.readexactly(length)


def _request(load: Load, path: str, body: str) -> bytes:
    encoded = body.encode()
    headers = {
        "Host": f"{load.host}:{load.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(encoded)),
        **load.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + encoded


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(Load(**json.load(sys.stdin))))))
