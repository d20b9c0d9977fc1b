"""Reads that callers share: which callers a read answers, and what happens to the others when one fails."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from api.database.batch_loader import BatchLoader


class Reads:
    """Doubles its keys, one read at a time let go by `let_go`; a negative key fails its read."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self._gates: list[asyncio.Event] = []

    async def __call__(self, keys: list[int]) -> list[int]:
        self.begun.append(keys)
        gate = asyncio.Event()
        self._gates.append(gate)
        await gate.wait()
        if min(keys) < 0:
            raise ValueError("negative")
        return [2 * key for key in keys]

    async def let_go(self, read: int) -> None:
        self._gates[read].set()
        await settled()


async def settled() -> None:
    """Whatever can go on without waiting has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


def playing(scenario: Callable[[Reads, BatchLoader[int, int]], Awaitable[None]], **bounds: int) -> Reads:
    reads = Reads()

    async def play() -> None:
        await scenario(reads, BatchLoader(reads, **bounds))

    asyncio.run(play())
    return reads


async def asking(loader: BatchLoader[int, int], *keys: int) -> list["asyncio.Task[int]"]:
    tasks = [asyncio.create_task(loader.load(key)) for key in keys]
    await settled()
    return tasks


@pytest.mark.parametrize("concurrent_reads", [1, 2, 3])
def test_so_many_reads_run_side_by_side_and_the_rest_share_the_next(concurrent_reads: int) -> None:
    async def scenario(reads: Reads, loader: BatchLoader[int, int]) -> None:
        running = [(await asking(loader, key))[0] for key in range(concurrent_reads)]
        late = await asking(loader, 10, 11, 12)
        assert reads.begun == [[key] for key in range(concurrent_reads)]
        await reads.let_go(0)
        assert await running[0] == 0
        assert reads.begun[concurrent_reads:] == [[10, 11, 12]]
        await reads.let_go(concurrent_reads)
        assert [await task for task in late] == [20, 22, 24]
        for read in range(1, concurrent_reads):
            await reads.let_go(read)
        assert [await task for task in running] == [2 * key for key in range(concurrent_reads)]

    playing(scenario, concurrent_reads=concurrent_reads)


def test_a_read_takes_no_more_keys_than_it_may() -> None:
    async def scenario(reads: Reads, loader: BatchLoader[int, int]) -> None:
        tasks = await asking(loader, 0) + await asking(loader, 1, 2, 3)
        for read in range(3):
            await reads.let_go(read)
        assert [await task for task in tasks] == [0, 2, 4, 6]

    assert playing(scenario, concurrent_reads=1, max_keys=2).begun == [[0], [1, 2], [3]]


def test_a_failure_is_of_those_who_shared_the_read_and_of_nobody_else() -> None:
    async def scenario(reads: Reads, loader: BatchLoader[int, int]) -> None:
        before, *shared = await asking(loader, 1) + await asking(loader, -1, 2)
        await reads.let_go(0)
        (after,) = await asking(loader, 3)
        await reads.let_go(1)
        await reads.let_go(2)
        assert (await before, await after) == (2, 6)
        for task in shared:
            with pytest.raises(ValueError, match="negative"):
                await task

    playing(scenario, concurrent_reads=1)


def test_a_caller_that_went_away_is_not_read_for_and_holds_nobody_up() -> None:
    async def scenario(reads: Reads, loader: BatchLoader[int, int]) -> None:
        reading, gone, staying = await asking(loader, 1) + await asking(loader, 2, 3)
        reading.cancel()
        gone.cancel()
        await settled()
        await reads.let_go(0)
        await reads.let_go(1)
        assert await staying == 6
        (later,) = await asking(loader, 4)
        await reads.let_go(2)
        assert await later == 8

    assert playing(scenario, concurrent_reads=1).begun == [[1], [3], [4]]


def test_a_key_that_several_callers_ask_for_is_read_once_for_all_of_them() -> None:
    async def scenario(reads: Reads, loader: BatchLoader[int, int]) -> None:
        tasks = await asking(loader, 1) + await asking(loader, 2, 3, 2)
        await reads.let_go(0)
        await reads.let_go(1)
        assert [await task for task in tasks] == [2, 4, 6, 4]

    assert playing(scenario, concurrent_reads=1).begun == [[1], [2, 3]]


def test_callers_of_one_moment_share_a_read() -> None:
    async def scenario(reads: Reads, loader: BatchLoader[int, int]) -> None:
        tasks = await asking(loader, 1, 2, 3)
        await reads.let_go(0)
        assert [await task for task in tasks] == [2, 4, 6]

    assert playing(scenario).begun == [[1, 2, 3]]
