"""Long work is cut into slices, of which one at most runs in each iteration of the event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from api.http import slices


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    def run_on_loop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run_on_loop


async def _iterations(count: list[int]) -> None:
    while True:
        await asyncio.sleep(0)
        count[0] += 1


def test_one_slice_runs_in_an_iteration_whoever_it_is_of(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_SECONDS", 0.0)
    seen: list[tuple[int, int]] = []

    async def work(name: int, count: list[int]) -> None:
        async for _ in slices.in_slices(range(5)):
            seen.append((count[0], name))

    async def main() -> None:
        count = [0]
        clock = asyncio.create_task(_iterations(count))
        await asyncio.gather(*(work(name, count) for name in range(8)))
        clock.cancel()

    run(main())
    assert len(seen) == 40
    assert len({iteration for iteration, _ in seen}) == 40
    assert {name for _, name in seen[:9]} == set(range(8))  # they take turns


def test_a_request_that_is_cancelled_while_it_waits_holds_nobody_up(run: Callable[..., Any]) -> None:
    async def main() -> list[str]:
        order: list[str] = []

        async def take(name: str) -> None:
            await slices.turn()
            order.append(name)

        tasks = [asyncio.create_task(take(name)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks, timeout=60)
        await take("d")
        return order

    assert run(main()) == ["a", "c", "d"]
