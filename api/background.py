"""Tasks that run behind the requests for as long as the application lives."""

import asyncio


async def end(task: "asyncio.Task[None]") -> None:
    """Cancel a task that runs forever, and wait until it is done.

    Once may not do: in Python 3.11 `asyncio.wait_for`, in which the pool of connections waits, drops a cancellation
    that comes together with its result, and the loop behind it goes on.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.5)
