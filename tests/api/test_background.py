"""Tasks behind the requests end when they are told to."""

import asyncio

from api.background import end


def test_a_task_that_misses_its_first_cancellation_ends_all_the_same() -> None:
    missed: list[bool] = []

    async def forever() -> None:
        while True:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                missed.append(True)
                if len(missed) > 1:
                    raise

    async def run() -> bool:
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        await end(task)
        return task.cancelled()

    assert asyncio.run(run())
    assert len(missed) == 2
