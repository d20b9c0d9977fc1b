"""PostgreSQL is restarted while clients ask and write."""

import json
import time
from typing import Any

import psycopg

from configs.postgres import DatabaseSettings
from tests.benchmarks.latency.fresh import INTERACTIONS
from tests.benchmarks.reliability.answers import CUT_OFF, counts, recommendations, traffic
from tests.benchmarks.running_demo import RunningDemo, Tenant, unique
from tests.fixtures.platform import wait_until

USERS = 200
AFTER_SECONDS = 8.0
RETURN_SECONDS = 5.0


def database(demo: RunningDemo, tenant: Tenant, **_: Any) -> dict[str, Any]:
    """Every other request writes an interaction. Those of them that are acknowledged must be there afterwards."""
    item = an_item(demo, tenant)
    prefix = unique("writer")
    users = [f"{prefix}-{number}" for number in range(USERS)]
    writes = [(INTERACTIONS, json.dumps({"userId": user, "itemId": item, "interactionType": "view"})) for user in users]
    requests = [each for pair in zip(recommendations(users), writes, strict=True) for each in pair]
    with traffic(demo.api_url, tenant.headers, requests) as seen:
        time.sleep(2)
        began = time.monotonic()
        demo.control("restart", "postgres")
        wait_until("PostgreSQL", lambda: _connects(demo))
        back = time.monotonic()
        time.sleep(AFTER_SECONDS)
    acknowledged = {
        json.loads(answer.body)["interactionId"]
        for answer in seen.answers
        if answer.request[0] == INTERACTIONS and answer.status == 201
    }
    with psycopg.connect(demo.database_url) as connection:
        query = "SELECT id::text FROM interactions WHERE tenant_id = %s AND user_id = ANY(%s)"
        written = {row[0] for row in connection.execute(query, [tenant.id, users]).fetchall()}
    refused = [answer for answer in seen.answers if answer.status == 503]
    failed = [answer for answer in seen.answers if answer.status not in (200, 201, 503)]
    last = max((answer.started for answer in (*refused, *failed)), default=back)
    return {
        **counts(seen),
        "seconds_down": round(back - began, 2),
        "served_again_after_s": round(last - back, 2),
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - written),
        "without_retry_after": sum(not answer.retry_after for answer in refused),
        "slowest_ms": round(max(answer.milliseconds for answer in seen.answers)),
        "statuses": sorted({answer.status for answer in seen.answers}),
        "verdicts": {
            "only 503 while it is away": not failed,
            "none cut off": not any(answer.status == CUT_OFF for answer in seen.answers),
            "Retry-After on every 503": all(answer.retry_after for answer in refused),
            f"served again within {RETURN_SECONDS:g} s": last - back <= RETURN_SECONDS,
            "no acknowledged interaction lost": acknowledged <= written,
        },
    }


def _connects(demo: RunningDemo) -> bool:
    try:
        psycopg.connect(DatabaseSettings().resolve(demo.paths), connect_timeout=2).close()
        return True
    except psycopg.OperationalError:
        return False


def an_item(demo: RunningDemo, tenant: Tenant) -> str:
    """An item that may be shown."""
    with psycopg.connect(demo.database_url) as connection:
        query = "SELECT id FROM items WHERE tenant_id = %s AND is_active AND deleted_at IS NULL ORDER BY id LIMIT 1"
        row = connection.execute(query, [tenant.id]).fetchone()
    assert row is not None
    return str(row[0])
