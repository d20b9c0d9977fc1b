"""A closed-loop HTTP load generator: N clients, each with one connection, each sending its next request on an answer.

Plain asyncio streams, because a full client library costs more processor time per request than the API under test.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Load:
    """What one run sends. `bodies` are cycled through by all clients together."""

    host: str
    port: int
    path: str
    headers: dict[str, str]
    bodies: list[str]
    clients: int
    seconds: float
    warm_up_seconds: float


async def run(load: Load) -> dict[str, float]:
    """Requests a second, latency percentiles in milliseconds, and counts of degraded and failed answers."""
    requests = [_request(load, body) for body in load.bodies]
    latencies: list[float] = []
    counts = {"degraded": 0, "errors": 0}
    position = 0
    begin = time.perf_counter() + load.warm_up_seconds
    end = begin + load.seconds

    async def client() -> None:
        nonlocal position
        reader, writer = await asyncio.open_connection(load.host, load.port)
        while (started := time.perf_counter()) < end:
            position += 1
            writer.write(requests[position % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            lowered = head.lower()
            length = int(lowered.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            await reader.readexactly(length)
            finished = time.perf_counter()
            if started >= begin:
                latencies.append(finished - started)
                counts["degraded"] += b"x-recommendation-degraded" in lowered
                counts["errors"] += not head.startswith(b"HTTP/1.1 2")
        writer.close()

    await asyncio.gather(*(client() for _ in range(load.clients)))
    milliseconds = np.array(latencies) * 1000
    return {
        "requests": len(latencies),
        "requests_per_second": round(len(latencies) / load.seconds, 1),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 2),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 2),
        **counts,
    }


def _request(load: Load, body: str) -> bytes:
    encoded = body.encode()
    headers = {
        "Host": f"{load.host}:{load.port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(encoded)),
        **load.headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {load.path} HTTP/1.1\r\n{head}\r\n".encode() + encoded


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Load(**json.load(sys.stdin))))))
