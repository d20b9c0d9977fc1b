"""Alerts on their way out: signed, to the tenant's own addresses only, at least once, and for a day at most."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import stripe
from psycopg.rows import dict_row
from pydantic import SecretStr

from api.alerts.delivery import AlertDelivery
from api.alerts.messages import SIGNATURE
from api.alerts.repository import AlertRepository
from api.database.engine import Database
from api.database.scope import TenantScope
from api.database.session import transaction
from api.http.outgoing import OutgoingClient
from api.retention.repository import delete_expired_rows
from api.settings.service import replace_settings
from api.tenants.service import create_tenant
from configs.mail import MailSettings
from configs.postgres import DatabaseSettings
from configs.retention import RetentionSettings
from configs.tenant_pipeline import TenantPipeline
from feature_store import alert_sinks
from pipelines.alerts import MAX_FACTS, send_alert
from pipelines.resources import Installation
from tests.api.test_outgoing import certificate
from tests.fixtures.mail_server import PASSWORD, USER, mail_server

pytestmark = pytest.mark.anyio
SECRET = "a secret of the tests of alerts"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Webhook:
    """A web server on loopback that keeps what it gets, and what it answers next."""

    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: bytes = OK

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in head.splitlines()[1:])
            }
            self.requests.append((headers, await reader.readexactly(int(headers["content-length"]))))
            writer.write(self.answer)
            await writer.drain()
        except ConnectionError:
            pass  # the client has hung up
        finally:
            writer.close()


@dataclass
class Place:
    """An installation with the tenant `acme`, and what delivers its alerts."""

    installation: Installation
    database: Database
    webhook: Webhook

    async def set(self, **alerts: Any) -> None:
        channels = {"webhookUrl": self.webhook.url, "webhookSecret": SECRET, **alerts}
        settings = TenantPipeline.model_validate({"alerts": channels})
        async with transaction(self.database) as session:
            await replace_settings(session, TenantScope("acme"), settings)

    async def send(self, event: Any = "drift", subject: str = "Popularity has shifted", **facts: Any) -> str | None:
        return await asyncio.to_thread(send_alert, self.installation, "acme", event, subject, facts or {"psi": 0.31})

    def delivery(self, client: OutgoingClient | None = None, mail: MailSettings | None = None) -> AlertDelivery:
        return AlertDelivery(
            self.database.pool, client or OutgoingClient(may_connect=lambda _: True), mail or MailSettings(host=None)
        )

    def sql(self, query: str) -> list[dict[str, Any]]:
        url = self.installation.database_url()
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def row(self) -> dict[str, Any]:
        (row,) = self.sql("SELECT *, next_attempt_at - now() AS pause FROM alerts")
        return row

    def make_due(self) -> None:
        self.sql("UPDATE alerts SET next_attempt_at = now()")


@pytest.fixture
async def place(database_url: str) -> AsyncIterator[Place]:
    database, webhook = Database(database_url, pool_min=1), Webhook()
    await database.open()
    async with transaction(database) as session:
        await create_tenant(session, "acme", "unlimited")
    listening = await asyncio.start_server(webhook.serve, "127.0.0.1", 0)
    async with listening:
        webhook.url = f"http://localhost:{listening.sockets[0].getsockname()[1]}/hook?token=t0psecret"
        yield Place(Installation(database=DatabaseSettings(url=SecretStr(database_url))), database, webhook)
    await database.close()


async def test_an_alert_is_signed_as_stripe_signs_and_mailed_over_tls(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate("localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    await place.set(emails=["ops@acme.example", "ann@acme.example"])
    id_ = await place.send(subject="Shi\0fted\r\nBcc: everybody@acme.example\n\nbody", category="<b>Toys</b>\r\nX: y")
    async with mail_server(str(file)) as server:
        mail = MailSettings(host="localhost", port=server.port, user=USER, password=PASSWORD, sender="us@ours.example")
        assert await place.delivery(mail=mail).deliver_due() == 1
        assert await place.delivery(mail=mail).deliver_due() == 0
    ((headers, body),) = place.webhook.requests
    stripe.WebhookSignature.verify_header(body.decode(), headers[SIGNATURE.lower()], SECRET, tolerance=60)
    told = json.loads(body)
    assert (told["id"], told["tenantId"], told["event"]) == (id_, "acme", "drift")
    assert told["facts"] == {"category": "<b>Toys</b>\r\nX: y"}
    ((recipients, written),) = server.mails
    assert recipients == ["ops@acme.example", "ann@acme.example"]
    assert written["Subject"] == "[acme] Shifted Bcc: everybody@acme.example body"
    assert (written["Bcc"], written["X"], written["From"]) == (None, None, "us@ours.example")
    assert written.get_content_type() == "text/plain"
    assert 'category: "<b>Toys</b>\\r\\nX: y"' in written.get_content()
    assert SECRET not in f"{body!r}{written}{place.row()}"
    assert place.row()["finished_at"] is not None


async def test_the_tenant_decides_what_is_reported(place: Place) -> None:
    assert await place.send() is None  # nobody wants to hear of anything
    await place.set(events=["rollback"])
    assert await place.send("drift") is None
    assert await place.send("rollback") is not None
    await place.set(events=["drift"])  # meanwhile it has changed its mind
    assert await place.delivery().deliver_due() == 1
    assert place.webhook.requests == []
    assert place.row()["finished_at"] is not None


async def test_a_private_address_gets_nothing_and_the_alert_is_given_up_after_a_day(place: Place, lines: Any) -> None:
    await place.set()
    await place.send()
    client = OutgoingClient()  # as in production: `localhost` is a name, and resolves to this machine
    for seconds in (60, 120, 240):
        assert await place.delivery(client).deliver_due() == 1
        row = place.row()
        assert seconds - 10 < row["pause"].total_seconds() <= seconds
        assert (row["error"], row["finished_at"]) == ("webhook: the host is not on the internet", None)
        place.make_due()
    place.sql("UPDATE alerts SET created_at = now() - interval '1 day'")
    assert await place.delivery(client).deliver_due() == 1
    place.make_due()
    assert await place.delivery(client).deliver_due() == 0
    assert place.webhook.requests == []
    (entry,) = place.sql("SELECT detail FROM audit_entries WHERE action = 'alert.failed'")
    assert entry["detail"]["error"] == "webhook: the host is not on the internet"
    told = json.dumps(lines())
    assert "given up" in told
    assert "t0psecret" not in f"{told}{entry}"
    assert SECRET not in f"{told}{entry}"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "webhook: status 500"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n",
            "webhook: status 302",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000, "webhook: an answer of more than 65536 bytes"),
    ],
    ids=["500", "redirect", "giant"],
)
async def test_what_is_not_taken_comes_again_with_its_id_and_only_where_it_was_not_taken(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, error: str
) -> None:
    file = certificate("localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    await place.set(emails=["ops@acme.example"])
    id_ = await place.send()
    async with mail_server(str(file)) as server:
        mail = MailSettings(host="localhost", port=server.port, user=USER, password=PASSWORD)
        delivery = place.delivery(mail=mail)
        place.webhook.answer, server.refusing = answer, True
        await delivery.deliver_due()
        row = place.row()
        assert (row["webhook_at"], row["mail_at"], row["finished_at"]) == (None, None, None)
        assert row["error"] == f"{error}; mail: the mail server answered 451 (SMTPDataError)"
        server.refusing = False
        place.make_due()
        await delivery.deliver_due()
        assert (place.row()["error"], len(server.mails)) == (error, 1)
        place.webhook.answer = OK
        place.make_due()
        await delivery.deliver_due()
    assert (place.row()["error"], place.row()["finished_at"] is not None) == (None, True)
    assert [json.loads(body)["id"] for _, body in place.webhook.requests] == [id_] * 3
    assert len(server.mails) == 1


async def test_processes_share_alerts_and_one_that_dies_leaves_its_to_the_others(place: Place) -> None:
    await place.set()
    sent = {await place.send() for _ in range(6)}
    repository = AlertRepository(place.database.pool)
    claims = await asyncio.gather(repository.claim(), repository.claim(), repository.claim())
    claimed = [str(alert.id) for claim in claims for alert in claim]
    claimed += [str(alert.id) for alert in await repository.claim()]
    assert sorted(claimed) == sorted(map(str, sent))
    place.make_due()  # none of these processes has recorded an outcome
    assert await place.delivery().deliver_due() == 4  # of one tenant at once
    assert await place.delivery().deliver_due() == 2
    assert {json.loads(body)["id"] for _, body in place.webhook.requests} == sent


async def test_alerts_are_bounded_in_number_in_length_and_in_age(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_sinks, "KEPT_ALERTS", 3)
    await place.set()
    sent = [await place.send(subject="x" * 500) for _ in range(5)]
    kept = {str(row["id"]) for row in place.sql("SELECT id FROM alerts")}
    assert kept == set(sent[2:])
    long = {"first": 1, **{f"category {number}": "x" * 1_000 for number in range(30)}}
    await place.send(**long)
    (row,) = place.sql("SELECT subject, facts FROM alerts ORDER BY created_at DESC LIMIT 1")
    assert row["facts"]["first"] == 1
    assert row["facts"]["more"] + len(row["facts"]) - 1 == len(long)
    assert len(json.dumps(row["facts"])) < MAX_FACTS + 100
    assert {len(row["subject"]) for row in place.sql("SELECT subject FROM alerts")} == {22, 200}
    place.sql("UPDATE alerts SET created_at = now() - interval '31 days'")
    assert (await delete_expired_rows(place.database.pool, RetentionSettings()))["alerts"] == 3


async def test_a_deleted_tenant_gets_none(place: Place) -> None:
    await place.set()
    place.sql("UPDATE tenants SET deleted_at = now()")
    assert await place.send() is None
    assert place.sql("SELECT id FROM alerts") == []
