"""Periodic tasks are repeated after failures, and end when they are stopped."""

import asyncio

from api.background import PeriodicTask, cancel_until_done


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
        await cancel_until_done(task)
        return task.cancelled()

    assert asyncio.run(run())
    assert len(missed) == 2


def test_a_task_is_repeated_after_an_error_and_stops_with_its_block() -> None:
    turns: list[int] = []
    fourth = asyncio.Event()

    async def work() -> None:
        turns.append(len(turns))
        if len(turns) == 4:
            fourth.set()
        if len(turns) == 1:
            raise ConnectionError("not now")
        if len(turns) == 2:
            raise ValueError("a mistake")

    async def run() -> None:
        async with PeriodicTask("work", work, 0.001, expected=(ConnectionError,)):
            await asyncio.wait_for(fourth.wait(), 10)
        done = len(turns)
        await asyncio.sleep(0.02)
        assert len(turns) == done

    asyncio.run(run())


def test_the_first_turn_comes_after_a_pause_unless_told_otherwise() -> None:
    async def turns_in_a_moment(starts_with_pause: bool) -> int:
        turns = 0

        async def work() -> None:
            nonlocal turns
            turns += 1

        async with PeriodicTask("work", work, 3_600, starts_with_pause=starts_with_pause):
            await asyncio.sleep(0.01)
        return turns

    assert asyncio.run(turns_in_a_moment(True)) == 0
    assert asyncio.run(turns_in_a_moment(False)) == 1


def test_after_a_failure_the_pause_may_be_longer() -> None:
    async def run() -> int:
        turns = 0

        async def work() -> None:
            nonlocal turns
            turns += 1
            raise ConnectionError

        async with PeriodicTask("work", work, 0.001, expected=(ConnectionError,), seconds_after_failure=3_600):
            await asyncio.sleep(0.03)
        return turns

    assert asyncio.run(run()) == 1
