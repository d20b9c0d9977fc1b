"""One port before several processes: `python -m tests.benchmarks.reliability.balancer PORT BACKEND...`

New connections go to the backends in turn. `out PORT` on stdin takes a backend out, `in PORT` puts it back. A
connection that is open stays with its backend until either side closes it. Bytes are passed on as they come.
"""

import asyncio
import sys

import uvloop

CHUNK = 65_536


async def run(port: int, backends: list[int]) -> None:
    turn = 0
    held: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", backends[turn % len(backends)])
        except OSError:
            writer.close()
            return
        for source, target in ((reader, requests), (answers, writer)):
            task = asyncio.create_task(_pass_on(source, target))
            held.add(task)
            task.add_done_callback(held.discard)

    async with await asyncio.start_server(connect, "127.0.0.1", port, backlog=1024):
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            action, backend = line.split()
            (backends.remove if action == "out" else backends.append)(int(backend))


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
    except ConnectionError:
        pass  # whoever closed the connection, the other side learns of it below
    finally:
        target.close()


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
