"""SIGTERM ends the API without cutting a request off, and what it counted and showed until then is written."""

import asyncio
import signal
from pathlib import Path

import httpx
import psycopg

from serving.contracts.codec import Codec
from serving.contracts.messages import BatchRequest
from tests.api.conftest import Tenants
from tests.fixtures.live import api_process
from tests.fixtures.scripted_server import Reply, ScriptedServer, answered, eventually, running

TENANTS = [f"tenant-{number}" for number in range(8)]
"""The client has one call of a tenant in flight, so the model server sees when all of them have come."""


def test_running_requests_are_answered_and_the_last_counts_and_impressions_written(
    tenants: Tenants, database_url: str, tmp_path: Path
) -> None:
    keys = [tenants.key(tenants.create(tenant)) for tenant in TENANTS]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO items (tenant_id, id, metadata, version) SELECT id, 'film-1', '{}', 0 FROM tenants"
        )

    async def scenario() -> None:
        ended = asyncio.Event()

        async def until_the_api_is_ended(request: BatchRequest, codec: Codec) -> Reply:
            await ended.wait()
            return await answered(request, codec)

        server = ScriptedServer(dict.fromkeys(TENANTS, until_the_api_is_ended))
        async with running(server) as serving_url:
            patient = {"SERVING_PATIENCE_SECONDS": "30", "SERVING_TIMEOUT_SECONDS": "30"}
            starting = api_process(database_url, tmp_path, SERVING_URL=serving_url, **patient)
            api = await asyncio.to_thread(starting.__enter__)
            try:
                async with httpx.AsyncClient(base_url=api.url, timeout=60) as http:
                    requests = [
                        asyncio.create_task(
                            http.post("/api/v1/recommend", json={"userId": "ann", "count": 1}, headers=key)
                        )
                        for key in keys
                    ]
                    await eventually(lambda: all_asked(server))
                    api.process.send_signal(signal.SIGTERM)
                    await eventually(lambda: takes_no_more(api.url))
                    ended.set()
                    answers = await asyncio.gather(*requests)
                assert await asyncio.to_thread(api.process.wait, 60) in (0, -signal.SIGTERM)
            finally:
                await asyncio.to_thread(starting.__exit__, None, None, None)
        assert {answer.status_code for answer in answers} == {200}
        assert all("X-Recommendation-Degraded" not in answer.headers for answer in answers)

    async def all_asked(server: ScriptedServer) -> bool:
        return server.calls.keys() == set(TENANTS)

    async def takes_no_more(url: str) -> bool:
        try:
            async with httpx.AsyncClient() as client:
                await client.get(f"{url}/health")
        except httpx.TransportError:
            return True
        return False

    asyncio.run(scenario())
    with psycopg.connect(database_url) as connection:
        (shown,) = connection.execute("SELECT count(*) FROM impressions WHERE degraded IS NULL").fetchone() or (None,)
        (units,) = connection.execute("SELECT sum(units) FROM usage_cycles").fetchone() or (None,)
    assert shown == len(TENANTS)
    assert units == len(TENANTS)
