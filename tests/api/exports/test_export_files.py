"""`/api/exports`: files that administrators ask for, who gets them, and when they are gone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from api.cli import all_commands
from api.database.erasure_lock import ERASE_ALONE_IN_TENANT
from api.exports import job_service
from api.tenants.service import delete_tenant
from configs.exports import ExportSettings
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from pipelines.definitions import build_definitions
from pipelines.defs.exports import steps
from pipelines.defs.exports.steps import clear_exports, export_next
from pipelines.jobs import EXPORT_FILES
from pipelines.partitions import GENERATION_TENANT_TAG
from pipelines.resources import Installation
from tests.fixtures.platform import wait_until
from tests.fixtures.portal import Portal
from tests.fixtures.search import files_with

USER = "erasmus-7f3a"
Headers = dict[str, str]


@pytest.fixture
def installation(portal: Portal, tmp_path: Path) -> Installation:
    """The pipeline beside the API, over the same database and folder. Ann and erasmus have interactions in acme."""
    key = portal.tenants.key("acme")
    rows = [{"userId": user, "itemId": "a", "interactionType": "view", "createItem": True} for user in ("ann", USER)]
    answer = portal.client.post("/api/v1/interactions/batch", json={"interactions": rows}, headers=key)
    assert answer.json()["failed"] == 0
    return Installation(
        paths=PathSettings(state_dir=tmp_path), database=DatabaseSettings(url=SecretStr(portal.tenants.url))
    )


def ask(portal: Portal, admin: Headers, **body: Any) -> str:
    answer = portal.client.post("/api/exports", json={"kind": "interactions", **body}, headers=admin)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/api/exports/{answer.json()['id']}"
    assert (answer.json()["status"], answer.json()["url"]) == ("processing", None)
    return str(answer.json()["id"])


def shown(portal: Portal, admin: Headers, id_: str) -> dict[str, Any]:
    return dict(portal.client.get(f"/api/exports/{id_}", headers=admin).json())


def fetch(portal: Portal, headers: Headers, id_: str) -> Any:
    return portal.client.get(f"/api/exports/{id_}/file", headers=headers)


def users_in(content: bytes, folder: Path) -> set[str]:
    (folder / "fetched").write_bytes(content)
    return set(pq.read_table(folder / "fetched")["user_id"].to_pylist())


def test_who_asked_fetches_the_file_until_it_expires_and_nobody_else_does(
    portal: Portal, installation: Installation, tmp_path: Path
) -> None:
    admin, theirs = portal.admin(), portal.admin("other")
    portal.person("second@acme.example", "admin")
    portal.person("member@acme.example")
    second, member = portal.login("second@acme.example"), portal.login("member@acme.example")
    id_ = ask(portal, admin)
    assert fetch(portal, admin, id_).status_code == 404  # it is not written yet
    assert "2 rows" in export_next(installation, "acme")
    job = shown(portal, admin, id_)
    assert (job["status"], job["rows"], job["url"]) == ("completed", 2, f"/api/exports/{id_}/file")
    answer = portal.client.get(job["url"], headers=admin)
    assert users_in(answer.content, tmp_path) == {"ann", USER}
    assert len(answer.content) == job["bytes"]
    assert answer.headers["content-disposition"].endswith('.parquet"')
    assert answer.headers["cache-control"] == "no-store"
    assert shown(portal, second, id_)["url"] is None  # an administrator sees that it is there
    statuses = {name: fetch(portal, each, id_).status_code for name, each in (("second", second), ("theirs", theirs))}
    assert statuses == {"second": 404, "theirs": 404}
    assert portal.client.get(f"/api/exports/{id_}", headers=theirs).status_code == 404
    assert [each["total"] for each in (listed(portal, admin), listed(portal, theirs))] == [1, 0]
    assert fetch(portal, member, id_).status_code == 403
    assert fetch(portal, portal.tenants.key("acme"), id_).status_code == 401
    trail = portal.client.get("/api/audit", params={"action": "export"}, headers=admin).json()["data"]
    assert [entry["action"] for entry in trail] == ["export.downloaded", "export.requested"]
    assert clear_exports(installation) == 0
    portal.sql("UPDATE export_jobs SET expires_at = now()")
    assert (fetch(portal, admin, id_).status_code, shown(portal, admin, id_)["status"]) == (404, "expired")
    assert clear_exports(installation) == 1
    assert (files_with(installation.paths.exports, USER), shown(portal, admin, id_)["status"]) == (set(), "expired")


def listed(portal: Portal, admin: Headers) -> dict[str, Any]:
    return dict(portal.client.get("/api/exports", headers=admin).json())


def test_an_erased_user_is_in_no_file(
    portal: Portal, installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = portal.admin()
    done = ask(portal, admin)
    export_next(installation, "acme")
    assert users_in(fetch(portal, admin, done).content, tmp_path) == {"ann", USER}
    under_way = ask(portal, admin)
    written: list[int] = []

    def erase_meanwhile(*args: Any, **more: Any) -> int:
        rows = write_table(*args, **more)
        if not written:
            assert portal.client.delete(f"/api/users/{USER}", headers=admin).status_code == 204
        written.append(rows)
        return rows

    write_table = steps.write_table
    monkeypatch.setattr(steps, "write_table", erase_meanwhile)
    export_next(installation, "acme")
    assert written == [2, 1]  # what was written before the erasure is thrown away
    assert users_in(fetch(portal, admin, under_way).content, tmp_path) == {"ann"}
    assert (fetch(portal, admin, done).status_code, shown(portal, admin, done)["status"]) == (404, "expired")
    assert "erased" in shown(portal, admin, done)["error"]
    assert clear_exports(installation) == 1
    assert files_with(installation.paths.exports, USER) == set()


def test_an_export_that_is_asked_for_during_an_erasure_begins_after_it(
    portal: Portal, installation: Installation, tmp_path: Path
) -> None:
    """Otherwise the erasure would not know of the job, and the job would not see the erasure."""
    admin = portal.admin()
    with ThreadPoolExecutor(1) as pool, psycopg.connect(portal.tenants.url) as erasing:
        erasing.execute("DELETE FROM interactions WHERE user_id = %s", [USER])
        erasing.execute(ERASE_ALONE_IN_TENANT, {"tenant": "acme"})  # as an erasure does before it withdraws exports
        asking = pool.submit(ask, portal, admin)
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        wait_until("the export", lambda: bool(portal.sql(waiting)))
        assert export_next(installation, "acme") == ""
        erasing.commit()
    assert "1 rows" in export_next(installation, "acme")
    assert users_in(fetch(portal, admin, asking.result()).content, tmp_path) == {"ann"}


def test_what_a_killed_export_left_goes_though_nobody_exports_again(portal: Portal, installation: Installation) -> None:
    admin = portal.admin()
    asker = portal.person("second@acme.example", "admin")
    ask(portal, portal.login("second@acme.example"))
    folder = installation.paths.exports / "tenant=acme"
    folder.mkdir(parents=True)
    (folder / ".tmp-x.parquet-0123456789ab").write_text(USER)
    assert clear_exports(installation) == 0
    assert files_with(installation.paths.exports, USER)  # the next attempt at the job removes it
    assert portal.client.delete(f"/api/users/{asker}", headers=admin).status_code == 204
    clear_exports(installation)
    assert files_with(installation.paths.exports, USER) == set()


def test_ended_exports_are_listed_for_a_time_and_then_deleted(portal: Portal, installation: Installation) -> None:
    admin = portal.admin()
    old, recent = ask(portal, admin), ask(portal, admin)
    export_next(installation, "acme")
    export_next(installation, "acme")
    waiting = ask(portal, admin)
    portal.sql("UPDATE export_jobs SET created_at = now() - interval '99 days', expires_at = now()")
    portal.sql("UPDATE export_jobs SET finished_at = now() - interval '31 days' WHERE id = %s", old)
    clear_exports(installation)
    assert {row["id"] for row in listed(portal, admin)["data"]} == {recent, waiting}


def test_files_go_with_who_asked_and_with_the_tenant(portal: Portal, installation: Installation) -> None:
    admin = portal.admin()
    asker = portal.person("second@acme.example", "admin")
    second = portal.login("second@acme.example")
    for headers in (second, admin):
        ask(portal, headers)
        export_next(installation, "acme")
    exported = portal.client.get(f"/api/users/{asker}/export", headers=admin).json()["exports"]
    assert [(each["kind"], each["status"]) for each in exported] == [("interactions", "completed")]
    assert portal.client.delete(f"/api/users/{asker}", headers=admin).status_code == 204
    assert listed(portal, admin)["total"] == 1
    assert clear_exports(installation) == 2  # the other was withdrawn: the asker might have been in it
    ask(portal, admin)
    export_next(installation, "acme")
    portal.tenants.run(lambda session: delete_tenant(session, "acme"))
    assert clear_exports(installation) == 1


def test_exports_are_bounded_and_a_failure_is_told(
    portal: Portal, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = portal.admin()
    for _ in range(job_service.MAX_WAITING):
        id_ = ask(portal, admin)
    refused = portal.client.post("/api/exports", json={"kind": "interactions"}, headers=admin)
    assert refused.status_code == 409
    ask(portal, portal.admin("other"), kind="impressions", format="csv")  # another tenant has its own
    portal.sql("DELETE FROM export_jobs WHERE id <> %s", id_)
    monkeypatch.setattr(steps, "MEGABYTE", 100)
    tiny = replace(installation, exports=ExportSettings(max_mb=1))
    assert "larger" in export_next(tiny, "acme")
    job = shown(portal, admin, id_)
    assert (job["status"], job["url"], "shorter period" in job["error"]) == ("failed", None, True)
    id_ = ask(portal, admin)
    for wrong in (
        {"kind": "users"},
        {"format": "xlsx"},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
    ):
        answer = portal.client.post("/api/exports", json={"kind": "interactions", **wrong}, headers=admin)
        assert answer.status_code == 400, wrong

    def break_off(*_: Any, **__: Any) -> int:
        raise OSError("the disk is full")

    monkeypatch.setattr(steps, "write_table", break_off)
    for _ in range(3):
        with pytest.raises(OSError, match="disk"):
            export_next(installation, "acme")
    assert shown(portal, admin, id_)["status"] == "processing"
    assert export_next(installation, "acme") == ""
    job = shown(portal, admin, id_)
    assert (job["status"], "ask again" in job["error"]) == ("failed", True)


def test_tenants_take_turns_and_a_run_writes_one_file(
    portal: Portal, installation: Installation, tmp_path: Path
) -> None:
    ours, theirs = portal.admin(), portal.admin("other")
    for admin in (ours, ours, theirs):
        ask(portal, admin, format="csv")
    home = tmp_path / "dagster-home"
    home.mkdir()
    definitions = build_definitions(installation)
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:

        def requested() -> Any:
            context = dg.build_sensor_context(instance=instance, resources={"installation": installation})
            return definitions.resolve_sensor_def("export_jobs")(context)

        requests = requested().run_requests
        assert [request.tags[GENERATION_TENANT_TAG] for request in requests] == ["acme", "other"]
        for request in requests:
            run = definitions.resolve_job_def(EXPORT_FILES).execute_in_process(
                instance=instance, run_config=request.run_config, tags=request.tags
            )
            assert run.success
        assert [[row["status"] for row in listed(portal, admin)["data"]] for admin in (ours, theirs)] == [
            ["processing", "completed"],
            ["completed"],
        ]
        assert [request.tags[GENERATION_TENANT_TAG] for request in requested().run_requests] == ["acme"]


def test_the_operator_exports_all_tenants_into_a_folder(
    portal: Portal, installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", portal.tenants.url)
    call: Callable[..., Any] = CliRunner().invoke
    done = call(all_commands(), ["export", "--to", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {
        f"{tenant}/{table}.parquet"
        for tenant in ("acme", "other")
        for table in ("interactions", "impressions", "recommendations", "seen_impressions")
    }
    assert {str(tmp_path / "out" / file) for file in files} == set(done.stdout.split())
    assert pq.read_table(tmp_path / "out/acme/interactions.parquet").num_rows == 2
    assert (tmp_path / "out/acme/interactions.parquet").stat().st_mode & 0o077 == 0
    unknown = call(all_commands(), ["export", "--to", str(tmp_path), "--tenant", "nobody"], catch_exceptions=False)
    assert unknown.exit_code == 1
    with psycopg.connect(portal.tenants.url) as connection:
        assert connection.execute("SELECT count(*) FROM export_jobs").fetchone() == (0,)
