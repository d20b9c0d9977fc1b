"""The database's limits on the API's connections: who exceeds one gets a 503, and nobody waits for ever."""

import time
from typing import Any

import psycopg
import pytest

from configs.database import LimitsOfRequests
from tests.fixtures.portal import Portal, running_portal


@pytest.mark.parametrize("limit", ["statement", "lock"])
def test_a_request_that_waits_for_a_lock_for_too_long_is_a_503(open_client: Any, tenants: Any, limit: str) -> None:
    connections = LimitsOfRequests(**{"statement": 60, "lock": 60, limit: 0.3})
    with running_portal(open_client, tenants, "acme", connections=connections) as portal:
        admin = portal.admin()
        with psycopg.connect(tenants.url) as holder:
            holder.execute("SELECT FROM tenants FOR UPDATE")
            answer = portal.client.post("/api/keys", json={"name": "shop"}, headers=admin)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert portal.client.post("/api/keys", json={"name": "shop"}, headers=admin).status_code == 201


def test_a_transaction_that_waits_for_its_request_ends_and_is_a_503(open_client: Any, tenants: Any) -> None:
    def adapt(app: Any) -> None:
        from api.database.session import Session

        @app.get("/slow")
        async def slow(session: Session) -> None:
            connection = await session.connection()
            await connection.exec_driver_sql("SELECT 1")
            time.sleep(1)  # noqa: ASYNC251 - a request that does something else inside its transaction
            await connection.exec_driver_sql("SELECT 1")

    connections = LimitsOfRequests(idle_transaction=0.2)
    with running_portal(open_client, tenants, "acme", connections=connections, adapt=adapt) as portal:
        assert _get(portal, "/slow") == 503
        assert _get(portal, "/health/ready") == 200


def test_an_erasure_may_take_longer(open_client: Any, tenants: Any) -> None:
    with running_portal(open_client, tenants, "acme", connections=LimitsOfRequests(statement=0.5)) as portal:
        admin = portal.admin()
        portal.client.post("/api/users", json={"id": "busy"}, headers=admin)
        portal.sql(
            "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN OLD; END'"
        )
        portal.sql("CREATE TRIGGER linger BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION linger()")
        assert portal.client.delete("/api/users/busy", headers=admin).status_code == 204
        with psycopg.connect(tenants.url) as holder:  # the limit of the next request is the connection's again
            holder.execute("SELECT FROM tenants FOR UPDATE")
            assert portal.client.post("/api/keys", json={"name": "shop"}, headers=admin).status_code == 503


def _get(portal: Portal, path: str) -> int:
    return int(portal.client.get(path).status_code)
