"""One tenant's trouble stays its own: breakers, patience and concurrency by tenant, against a server over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from configs.serving import ServingSettings
from serving.client import MAX_WAITING, ServingClient
from serving.contracts.codec import Codec
from serving.contracts.messages import BatchRequest, CatalogueDelta, CataloguePlace, RecommendQuery, ServingUnavailable
from serving.tenant_health import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, TenantHealth
from tests.fixtures.platform import free_ports
from tests.fixtures.scripted_server import (
    Behaviour,
    Reply,
    ScriptedServer,
    answered,
    eventually,
    failing,
    garbage,
    hanging,
    never_satisfied,
    running,
    slow,
    too_few_answers,
    too_large,
)

QUERY = RecommendQuery("collaborative", 1)
PATIENT = 30.0
"""Seconds of a client whose calls are to be answered, on a machine that others use too."""


@asynccontextmanager
async def client_of(
    url: str, patience_seconds: float = PATIENT, timeout_seconds: float = PATIENT
) -> AsyncIterator[ServingClient]:
    client = ServingClient(ServingSettings(url=url, patience_seconds=patience_seconds, timeout_seconds=timeout_seconds))
    try:
        yield client
    finally:
        await client.close()


async def nothing_changed(since: CataloguePlace) -> CatalogueDelta:
    return CatalogueDelta(since.version, since.version + 1, [])


async def outcome(client: ServingClient, tenant: str) -> str:
    try:
        await client.ask(tenant, 1, QUERY, nothing_changed)
    except ServingUnavailable as unavailable:
        return unavailable.reason
    return "answered"


async def refused(client: ServingClient, tenant: str) -> bool:
    return await outcome(client, tenant) != "answered"


async def until_answered(client: ServingClient, tenant: str) -> None:
    async def is_answered() -> bool:
        return await outcome(client, tenant) == "answered"

    await eventually(is_answered)


@pytest.mark.parametrize(
    "trouble",
    [too_large, failing, garbage, too_few_answers, never_satisfied],
    ids=["413", "500", "not decodable", "too few answers", "a delta loop"],
)
def test_what_fails_for_one_tenant_is_the_fallback_for_that_tenant_alone(trouble: Behaviour) -> None:
    async def scenario() -> None:
        server = ScriptedServer({"troubled": trouble})
        async with running(server) as url, client_of(url) as client:
            for _ in range(40):
                mine, others = await asyncio.gather(outcome(client, "troubled"), outcome(client, "innocent"))
                assert (mine, others) == ("serving-unavailable", "answered")
                await asyncio.sleep(0.005)
            assert server.calls["innocent"] == 40
            assert server.calls["troubled"] < 30  # it is asked for again, and not for every query
            server.behaviours.clear()
            await until_answered(client, "troubled")

    asyncio.run(scenario())


def test_a_call_that_is_never_answered_costs_the_others_nothing() -> None:
    async def scenario() -> None:
        server = ScriptedServer({"troubled": hanging})
        async with running(server) as url, client_of(url, patience_seconds=0.2, timeout_seconds=0.5) as client:
            waiting = [asyncio.create_task(outcome(client, "troubled")) for _ in range(100)]
            while not all(task.done() for task in waiting):
                assert await outcome(client, "innocent") == "answered"
            assert {task.result() for task in waiting} == {"serving-unavailable"}
            assert await outcome(client, "troubled") == "serving-unavailable"
            assert server.most_in_flight["troubled"] == 1
            server.behaviours.clear()
            await until_answered(client, "troubled")

    asyncio.run(scenario())


def test_callers_get_the_fallback_while_the_call_goes_on_and_its_answer_ends_it() -> None:
    async def scenario() -> None:
        release = asyncio.Event()

        async def held(request: object, codec: object) -> Reply:
            await release.wait()
            return await answered(request, codec)  # type: ignore[arg-type]

        server = ScriptedServer({"films": held})
        async with running(server) as url, client_of(url, patience_seconds=0.2) as client:
            assert await outcome(client, "films") == "serving-unavailable"
            for _ in range(20):
                assert await outcome(client, "films") == "serving-unavailable"
            assert server.calls["films"] == 1  # they did not wait, and sent nothing
            server.behaviours.clear()
            release.set()
            await until_answered(client, "films")
            assert server.calls["films"] == 2

    asyncio.run(scenario())


def test_a_slow_tenant_does_not_hold_up_the_calls_of_others() -> None:
    async def scenario() -> None:
        server = ScriptedServer({"slow": slow(1.0)})
        async with running(server) as url, client_of(url) as client:
            slow_ones = [asyncio.create_task(outcome(client, "slow")) for _ in range(200)]
            await asyncio.sleep(0)
            answers = 0
            while not slow_ones[0].done():
                assert await outcome(client, "innocent") == "answered"
                answers += 1
            assert answers > 20
            assert server.most_in_flight["slow"] == 1
            for task in slow_ones:
                task.cancel()

    asyncio.run(scenario())


def test_a_tenant_has_a_bounded_number_of_waiting_queries() -> None:
    async def scenario() -> None:
        server = ScriptedServer({"slow": hanging})
        async with running(server) as url, client_of(url) as client:
            waiting = [asyncio.create_task(outcome(client, "slow")) for _ in range(MAX_WAITING)]
            await asyncio.sleep(0)
            assert await outcome(client, "slow") == "serving-unavailable"
            for task in waiting:
                task.cancel()

    asyncio.run(scenario())


def test_a_server_that_refuses_connections_is_away_for_everybody_and_found_again_without_help() -> None:
    async def scenario() -> None:
        port = free_ports(1)[0]
        async with client_of(f"http://127.0.0.1:{port}") as client:
            assert await outcome(client, "one") == "serving-unavailable"
            for tenant in ("one", "two"):
                assert await outcome(client, tenant) == "serving-unavailable"
            server = ScriptedServer()
            async with running(server, port):
                await until_answered(client, "two")
                assert await outcome(client, "one") == "answered"  # no tenant keeps a breaker from the outage

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [200, 503])
def test_a_server_that_answers_nobody_is_away_for_everybody(status: int) -> None:
    async def nonsense() -> Reply:
        return status, b"nothing"

    async def scenario() -> None:
        server = ScriptedServer({"one": garbage}, check=nonsense)
        async with running(server) as url, client_of(url) as client:
            assert await outcome(client, "one") == "serving-unavailable"
            await eventually(lambda: refused(client, "two"))
            asked = server.calls.total()
            for _ in range(20):
                assert await outcome(client, "two") == "serving-unavailable"
            assert server.calls.total() == asked
            server.behaviours.clear()
            server.check = None
            await until_answered(client, "one")
            assert await outcome(client, "two") == "answered"

    asyncio.run(scenario())


def test_a_caller_that_leaves_as_the_probe_leaves_the_next_one_to_try() -> None:
    async def scenario() -> None:
        server = ScriptedServer({"films": failing})
        async with running(server) as url, client_of(url) as client:
            assert await outcome(client, "films") == "serving-unavailable"
            server.behaviours.clear()
            await asyncio.sleep(FIRST_PAUSE_SECONDS + 0.05)
            probe = asyncio.create_task(client.ask("films", 1, QUERY, nothing_changed))
            await asyncio.sleep(0)
            probe.cancel()
            await until_answered(client, "films")

    asyncio.run(scenario())


class Clock:
    ticks = 0  # of 1/64 s

    def __call__(self) -> float:
        return self.ticks / 64


def test_pauses_double_up_to_a_bound_and_admit_one_probe_each() -> None:
    clock = Clock()
    health = TenantHealth(0.2, 0.0, clock=clock)
    pauses = []
    for _ in range(8):
        assert health.admits("films")
        health.failed("films")
        start = clock()
        while not health.admits("films"):
            clock.ticks += 1
        assert not health.admits("films")  # the probe is on its way
        health.withdraw("films")
        pauses.append(clock() - start)
    assert pauses == [FIRST_PAUSE_SECONDS, 0.5, 1.0, *[MAX_PAUSE_SECONDS] * 5]
    health.answered("films", 0.01)
    assert all(health.admits("films") for _ in range(3))


def test_patience_follows_a_busy_machine_and_not_a_server_that_hangs() -> None:
    health = TenantHealth(0.2, 0.6)
    for _ in range(100):
        health.answered("films", 0.01)
    assert health.patience("films") == 0.2
    for _ in range(20):
        health.answered("films", 5.0)  # late answers of a server that became slow
    assert health.patience("films") == 0.2
    for _ in range(3):
        health.answered("films", 0.15)  # in time, yet near the bound
    assert health.patience("films") == pytest.approx(0.45)
    for _ in range(3):
        health.answered("films", 0.44)
    assert health.patience("films") == pytest.approx(0.6)
    assert health.patience("books") == 0.2
    for _ in range(100):
        health.answered("films", 0.01)
    assert health.patience("films") == 0.2


def test_by_default_patience_does_not_rise() -> None:
    settings = ServingSettings()
    health = TenantHealth(settings.patience_seconds, settings.max_patience_seconds)
    for _ in range(20):
        health.answered("films", settings.patience_seconds)
    assert health.patience("films") == settings.patience_seconds


def test_the_wait_behind_a_call_counts_as_well() -> None:
    """A caller waits for its patience altogether: for the call before its own, and for its own."""

    async def scenario() -> None:
        first_call, second_call = asyncio.Event(), asyncio.Event()
        turns = iter((first_call, second_call))

        async def in_turn(request: BatchRequest, codec: Codec) -> Reply:
            await next(turns).wait()
            return await answered(request, codec)

        server = ScriptedServer({"films": in_turn})
        async with running(server) as url, client_of(url, patience_seconds=1.0) as client:
            loop = asyncio.get_running_loop()
            early = asyncio.create_task(outcome(client, "films"))
            await eventually(lambda: has_calls(server, 1))
            asked = loop.time()
            behind = asyncio.create_task(outcome(client, "films"))
            await asyncio.sleep(0.5)
            first_call.set()
            assert await early == "answered"
            await eventually(lambda: has_calls(server, 2))
            sent = loop.time()
            assert await behind == "serving-unavailable"
            if sent - asked < 0.9:  # else this machine was too busy to tell
                assert not client._queues["films"].late  # its call has not taken that long itself
            second_call.set()
            server.behaviours.clear()
            await until_answered(client, "films")

    asyncio.run(scenario())


async def has_calls(server: ScriptedServer, count: int) -> bool:
    return server.calls["films"] == count


def test_only_so_many_tenants_are_remembered() -> None:
    health = TenantHealth(0.2, 0.0, size=3)
    for number in range(10):
        health.failed(f"tenant-{number}")
    assert len(health) == 3
    assert health.admits("tenant-0")
    assert not health.admits("tenant-9")
