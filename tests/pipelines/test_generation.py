"""Bulk generation scores every user of a segment once, after crashes, deletions and changes of items too."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg
import pyarrow as pa
import pytest

from configs.pipelines import PipelineSettings
from feature_store.generation_sinks import MAX_ATTEMPTS, generating
from feature_store.generation_sources import generation_source, tenants_to_generate
from feature_store.schemas import RECOMMENDATIONS
from pipelines.definitions import build_definitions
from pipelines.defs.generation import steps
from pipelines.defs.generation.steps import JobResult, process_jobs
from pipelines.jobs import GENERATE
from pipelines.partitions import GENERATION_TENANT_TAG
from pipelines.resources import Installation
from pipelines.runs import PROCESS_TAG, this_process
from serving.contracts.histories import pack_history
from serving.contracts.messages import BatchRequest, HistoryEvent, RecommendQuery
from serving.predictor import Predictor
from serving.release import release_folder
from tests.feature_store.rows import add_interactions, add_items, add_tenant, delete_item
from tests.fixtures.platform import ROOT, wait_until
from tests.fixtures.releases import item_id, publish_small, small_dataset
from tests.pipelines.conftest import TENANT

Connection = psycopg.Connection[Any]
COUNT = 5


def quiet(_done: int, _total: int) -> None: ...


@pytest.fixture
def shop(connection: Connection) -> Connection:
    """A tenant with the items of the small release, which has none yet."""
    items = small_dataset().items
    add_items(connection, TENANT, dict(zip(items.ids, items.metadata, strict=True)))
    return connection


@pytest.fixture
def release(installation: Installation, shop: Connection, tmp_path: Path) -> str:
    return publish_small(installation.paths.bentoml, tmp_path / "models", TENANT, catalogue_version=1)


def add_users(connection: Connection, *ids: str, tenant: str = TENANT, **columns: Any) -> None:
    names = ["tenant_id", "id", *columns]
    query = f"INSERT INTO users ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
    for id_ in ids:
        connection.execute(query, [tenant, id_, *columns.values()])


def ask(connection: Connection, tenant: str = TENANT, **columns: Any) -> str:
    """Write a job as the API does; its id."""
    row = {"algorithm": "collaborative", "user_segment": "all", "count": COUNT, "users_total": 0, **columns}
    names = ["tenant_id", "id", *row]
    id_ = str(uuid4())
    query = f"INSERT INTO generation_jobs ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
    connection.execute(query, [tenant, id_, *row.values()])
    return id_


def job(connection: Connection, id_: str) -> tuple[Any, ...]:
    """(status, users_total, users_done, recommendations_written, error)"""
    row = connection.execute(
        "SELECT status, users_total, users_done, recommendations_written, error FROM generation_jobs WHERE id = %s",
        [id_],
    ).fetchone()
    assert row is not None
    return row


def generated(connection: Connection, id_: str) -> dict[str, list[str]]:
    """Items by user, best first."""
    rows = connection.execute(
        "SELECT user_id, array_agg(item_id ORDER BY rank) FROM recommendations WHERE job_id = %s GROUP BY user_id",
        [id_],
    )
    return dict(rows.fetchall())


def run(installation: Installation, progress: Callable[[int, int], None] = quiet, **options: Any) -> list[JobResult]:
    return list(process_jobs(installation, TENANT, progress, **options))


@pytest.mark.parametrize(("allowed", "fits"), [(2, False), (3, True), (None, True)])
def test_a_job_that_no_longer_fits_in_the_budget_fails_before_it_scores(
    allowed: int | None, fits: bool, installation: Installation, shop: Connection, release: str
) -> None:
    add_users(shop, "ann", "bob", "cy")
    id_ = ask(shop, users_total=1, users_allowed=allowed)
    (result,) = run(installation)
    status, _, done, _, error = job(shop, id_)
    assert (status, done) == (("completed", 3) if fits else ("failed", 0))
    if not fits:
        assert error == result.problem
        assert "it has 3 users, and the budget of this cycle allows 2 more" in result.problem
        assert shop.execute("SELECT users_scored FROM generation_jobs").fetchall() == [(0,)]


def test_every_user_gets_what_the_model_recommends(installation: Installation, shop: Connection, release: str) -> None:
    likes = {"ann": ["horror-1", "horror-2"], "bob": ["comedy-3"], "cold": []}
    add_users(shop, *likes)
    for user, items in likes.items():
        for day, item in enumerate(items, start=1):
            add_interactions(shop, TENANT, [(user, item)], at=datetime(2025, 1, day, tzinfo=UTC))
    id_ = ask(shop, algorithm="hybrid")
    assert run(installation) == [JobResult(id_, "hybrid", release, 3, 15)]
    assert job(shop, id_) == ("completed", 3, 3, 15, None)
    predictor = Predictor.load(release_folder(installation.paths.bentoml, TENANT, release), 200)
    for user, items in likes.items():
        history = [HistoryEvent(item, "like", 0.8, day * 86_400_000_000) for day, item in enumerate(items)]
        # The tenant leaves out all that was seen.
        query = RecommendQuery("hybrid", COUNT, pack_history(history), exclude=items)
        (answer,) = predictor.answer(BatchRequest(TENANT, 1, [query])).answers
        rows = shop.execute(
            "SELECT item_id, score, reason, algorithm, release FROM recommendations WHERE user_id = %s ORDER BY rank",
            [user],
        ).fetchall()
        assert [row[:3] for row in rows] == [(each.item_id, each.score, each.explanation) for each in answer]
        assert {row[3:] for row in rows} == {("hybrid", release)}


@pytest.mark.parametrize(
    ("exclude_seen", "missing"), [("none", []), ("bought", ["horror-2"]), ("all", ["horror-1", "horror-2"])]
)
def test_the_tenants_setting_says_which_seen_items_are_left_out(
    installation: Installation, shop: Connection, release: str, exclude_seen: str, missing: list[str]
) -> None:
    shop.execute("UPDATE tenants SET exclude_seen = %s", [exclude_seen])
    add_users(shop, "ann")
    add_interactions(shop, TENANT, [("ann", "horror-1")], kind="view")
    add_interactions(shop, TENANT, [("ann", "horror-2")], kind="purchase")
    id_ = ask(shop, count=100)
    run(installation)
    assert sorted(set(small_dataset().items.ids) - set(generated(shop, id_)["ann"])) == missing


def test_the_catalogue_is_that_of_this_moment(installation: Installation, shop: Connection, release: str) -> None:
    add_users(shop, "ann")
    add_items(shop, TENANT, {"western-new": {"title": "western westernmost", "genres": ["western"]}})
    delete_item(shop, TENANT, "western-1")
    shop.execute("UPDATE items SET version = 4, is_active = false WHERE id = 'western-2'")
    shop.execute("UPDATE items SET version = 4 WHERE id = 'western-1'")
    shop.execute("UPDATE catalogues SET version = 4")
    id_ = ask(shop, algorithm="content-based", count=100)
    run(installation)
    expected = {*small_dataset().items.ids, "western-new"} - {"western-1", "western-2"}
    assert set(generated(shop, id_)["ann"]) == expected


@pytest.mark.parametrize(("segment", "users"), [("all", "abcde"), ("active", "bc"), ("new", "abd")])
def test_a_segment_is_who_the_contract_says(
    installation: Installation, shop: Connection, release: str, segment: str, users: str
) -> None:
    now = datetime.now(UTC)
    add_users(shop, "a")
    add_users(shop, "b", last_active_at=now - timedelta(days=29))
    add_users(shop, "c", last_active_at=now)
    add_users(shop, "d", "e", last_active_at=now - timedelta(days=31))
    add_users(shop, "disabled", last_active_at=now, is_active=False)
    for user, events in (("b", 4), ("c", 5), ("e", 6)):
        add_interactions(shop, TENANT, [(user, item_id("comedy", number)) for number in range(events)])
    id_ = ask(shop, user_segment=segment)
    add_users(shop, "late", last_active_at=now)
    run(installation)
    assert "".join(sorted(generated(shop, id_))) == users
    assert job(shop, id_)[:4] == ("completed", len(users), len(users), len(users) * COUNT)


def test_other_tenants_are_left_alone(installation: Installation, shop: Connection, release: str) -> None:
    add_tenant(shop, "rival")
    add_items(shop, "rival", {"horror-1": {}})
    add_users(shop, "ann", tenant="rival")
    add_users(shop, "ann")
    foreign, own = ask(shop, tenant="rival"), ask(shop)
    run(installation)
    assert job(shop, own)[0] == "completed"
    assert job(shop, foreign)[0] == "processing"
    assert shop.execute("SELECT DISTINCT tenant_id FROM recommendations").fetchall() == [(TENANT,)]
    assert tenants_to_generate(installation.database_url()) == ["rival"]


def test_jobs_are_worked_off_in_turn_those_too_that_come_meanwhile(
    installation: Installation, shop: Connection, release: str
) -> None:
    add_users(shop, "ann")
    jobs = [ask(shop, count=1), ask(shop, count=2)]

    def progress(_done: int, _total: int) -> None:
        if len(jobs) < 3:
            jobs.append(ask(shop, count=3))

    assert [each.job_id for each in run(installation, progress)] == jobs
    assert [len(generated(shop, id_)["ann"]) for id_ in jobs] == [1, 2, 3]


def test_a_long_generation_of_one_tenant_makes_way_for_another_and_goes_on_later(
    installation: Installation, shop: Connection, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ASK_SECONDS", 0.0)
    hurried = replace(installation, pipeline=PipelineSettings(generation_turn_seconds=0))
    users = [f"user-{number}" for number in range(6)]
    add_users(shop, *users)
    jobs = [ask(shop), ask(shop)]
    add_tenant(shop, "rival")
    shop.execute(
        "UPDATE generation_jobs SET created_at = created_at + interval '1 hour'"
    )  # who came first is no matter
    rival = ask(shop, tenant="rival")
    (broken_off,) = run(hurried, max_batch=2)
    assert (broken_off.job_id, broken_off.users, broken_off.goes_on) == (jobs[0], 2, True)
    assert job(shop, jobs[0])[:3] == ("processing", 6, 2)
    assert tenants_to_generate(installation.database_url()) == ["rival", TENANT]
    shop.execute("UPDATE generation_jobs SET status = 'completed' WHERE id = %s", [rival])
    assert [(each.job_id, each.users) for each in run(hurried, max_batch=2)] == [(jobs[0], 4), (jobs[1], 6)]
    assert all(sorted(generated(shop, id_)) == users for id_ in jobs)
    scored = shop.execute("SELECT users_scored FROM generation_jobs WHERE tenant_id = %s", [TENANT]).fetchall()
    assert scored == [(6,), (6,)]


def test_a_job_whose_users_get_nothing_is_not_broken_off_since_it_would_never_end(
    installation: Installation, shop: Connection, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ASK_SECONDS", 0.0)
    add_users(shop, *[f"user-{number}" for number in range(6)])
    shop.execute("UPDATE items SET is_active = false, version = 2")
    shop.execute("UPDATE catalogues SET version = 2")
    id_ = ask(shop)
    add_tenant(shop, "rival")
    ask(shop, tenant="rival")
    (result,) = run(replace(installation, pipeline=PipelineSettings(generation_turn_seconds=0)), max_batch=2)
    assert (result.goes_on, result.recommendations, job(shop, id_)[0]) == (False, 0, "completed")


def test_a_job_without_a_release_or_without_the_family_fails_and_says_so(
    installation: Installation, shop: Connection, tmp_path: Path
) -> None:
    add_users(shop, "ann")
    first = ask(shop)
    run(installation)
    assert job(shop, first)[0] == "failed"
    assert "no released models" in job(shop, first)[4]
    published = publish_small(installation.paths.bentoml, tmp_path / "models", TENANT, catalogue_version=1)
    second = ask(shop, algorithm="deep-learning")
    run(installation)
    assert job(shop, second)[0] == "failed"
    assert "deep-learning" in job(shop, second)[4] and published in job(shop, second)[4]
    assert run(installation) == []


def test_a_broken_release_is_passed_over(installation: Installation, shop: Connection, tmp_path: Path) -> None:
    home = installation.paths.bentoml
    sound = publish_small(home, tmp_path / "models", TENANT, catalogue_version=1)
    broken = publish_small(home, tmp_path / "models", TENANT, catalogue_version=1)
    (release_folder(home, TENANT, broken) / "items.parquet").unlink()
    add_users(shop, "ann")
    ask(shop)
    assert [each.release for each in run(installation)] == [sound]


# Generates in batches of two users until it is killed: told so, it stops after a batch and waits for that.
_VICTIM = """
import sys, time
from pathlib import Path
from pydantic import SecretStr
from configs.postgres import DatabaseSettings
from configs.settings import PathSettings
from pipelines.defs.generation.steps import process_jobs
from pipelines.resources import Installation

url, state, after = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def progress(done, total):
    if done >= after:
        (state / "reached").touch()
        time.sleep(600)

installation = Installation(paths=PathSettings(state_dir=state), database=DatabaseSettings(url=SecretStr(url)))
list(process_jobs(installation, "acme", progress, max_batch=2))
"""


def start_victim(installation: Installation, after: int) -> subprocess.Popen[bytes]:
    """A process that has committed so many users and goes no further."""
    state = installation.paths.root
    command = [sys.executable, "-c", _VICTIM, installation.database_url(), str(state), str(after)]
    victim = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    wait_until("the batch", (state / "reached").exists)
    (state / "reached").unlink()
    return victim


def test_what_a_crash_cut_off_goes_on_and_every_user_is_done_once(
    installation: Installation, shop: Connection, release: str
) -> None:
    users = [f"user-{number}" for number in range(9)]
    add_users(shop, *users)
    id_ = ask(shop)
    victim = start_victim(installation, after=4)
    try:
        assert job(shop, id_)[:4] == ("processing", 9, 4, 4 * COUNT)
        # While it lives, nobody else takes its turn.
        assert run(installation) == []
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    wait_until("the end of its session", lambda: turn_is_free(installation))
    seen: list[tuple[int, int]] = []
    (outcome,) = run(installation, lambda done, total: seen.append((done, total)), max_batch=2)
    assert (outcome.users, seen) == (5, [(2, 5), (4, 5), (5, 5)])
    assert job(shop, id_) == ("completed", 9, 9, 9 * COUNT, None)
    lists = generated(shop, id_)
    assert sorted(lists) == users
    assert all(len(items) == len(set(items)) == COUNT for items in lists.values())
    assert run(installation) == []


def turn_is_free(installation: Installation) -> bool:
    with generating(installation.database_url(), TENANT) as generation:
        return generation is not None


def test_what_breaks_off_is_taken_up_and_given_up_only_where_it_never_gets_on(
    installation: Installation, shop: Connection, release: str
) -> None:
    add_users(shop, *[f"user-{number}" for number in range(6)])
    id_ = ask(shop)

    def break_off(_done: int, _total: int) -> None:
        raise RuntimeError("as a failing disk would")

    for attempt in range(3):  # each gets on by one batch
        with pytest.raises(RuntimeError):
            run(installation, break_off, max_batch=1)
        assert job(shop, id_)[:3] == ("processing", 6, attempt + 1)
    folder = release_folder(installation.paths.bentoml, TENANT, release)
    (folder / "items.parquet").unlink()
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Exception, match=r"items\.parquet"):
            run(installation)
        assert job(shop, id_)[0] == "processing"
    assert run(installation) == []
    assert job(shop, id_)[0] == "failed"
    assert "broke off 3 times" in job(shop, id_)[4]


def test_deleting_the_tenant_cancels_the_job_and_leaves_nothing(
    installation: Installation, shop: Connection, release: str
) -> None:
    add_users(shop, *[f"user-{number}" for number in range(6)])
    id_ = ask(shop)
    deletes = [sys.executable, "-m", "api", "delete-tenant", "--id", TENANT, "--yes"]
    environment = {**os.environ, "DATABASE_URL": installation.database_url()}

    def progress(done: int, _total: int) -> None:
        if done == 2:
            subprocess.run(deletes, cwd=ROOT, env=environment, check=True, stdin=subprocess.DEVNULL, timeout=60)

    (outcome,) = run(installation, progress, max_batch=2)
    assert (outcome.job_id, outcome.recommendations) == (id_, 0)
    assert "deleted" in outcome.problem
    for table in ("recommendations", "generation_jobs", "users"):
        assert shop.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert tenants_to_generate(installation.database_url()) == []


def test_users_who_go_meanwhile_get_nothing_nor_does_who_takes_their_id(
    installation: Installation, shop: Connection, release: str
) -> None:
    add_users(shop, "a", "b", "gone", "new-owner", "z")
    id_ = ask(shop)

    def progress(done: int, _total: int) -> None:
        if done == 2:
            shop.execute("DELETE FROM users WHERE id IN ('a', 'gone', 'new-owner')")
            add_users(shop, "new-owner")

    run(installation, progress, max_batch=2)
    assert sorted(generated(shop, id_)) == ["b", "z"]
    assert job(shop, id_)[:3] == ("completed", 5, 5)


def test_a_user_erased_while_records_are_written_is_gone_with_them(
    installation: Installation, shop: Connection, release: str
) -> None:
    add_users(shop, "ann", "bob")
    id_ = ask(shop)
    url = installation.database_url()
    with (
        generating(url, TENANT) as generation,
        generation_source(url, TENANT) as source,
        psycopg.connect(url) as erasing,
    ):
        assert generation is not None
        claimed = generation.next_job()
        assert claimed is not None
        users = source.audience(id_)
        generation.begin(claimed, release, 2)
        erasing.execute("DELETE FROM recommendations WHERE user_id = 'ann'")
        rows = {
            "user_id": users["user_id"],
            "created_at": users["created_at"],
            "item_id": ["horror-1", "horror-1"],
            "rank": [1, 1],
            "score": [0.5, 0.5],
            "reason": ["why not", "why not"],
        }
        assert generation.write(claimed, release, pa.table(rows, schema=RECOMMENDATIONS), 2) == 2
        erasing.execute("DELETE FROM users WHERE id = 'ann'")
        erasing.commit()
    assert sorted(generated(shop, id_)) == ["bob"]


def test_an_item_hidden_meanwhile_is_not_written(installation: Installation, shop: Connection, release: str) -> None:
    add_users(shop, "a", "b")
    id_ = ask(shop, count=60)

    def progress(done: int, _total: int) -> None:
        if done == 1:
            # The version stays, so that the catalogue cannot know.
            shop.execute("UPDATE items SET is_active = false WHERE id = 'horror-1'")

    run(installation, progress, max_batch=1)
    assert Counter(len(items) for items in generated(shop, id_).values()) == {60: 1, 59: 1}


def tick(installation: Installation, instance: dg.DagsterInstance) -> Any:
    context = dg.build_sensor_context(instance=instance, resources={"installation": installation})
    return build_definitions(installation).resolve_sensor_def("generation_jobs")(context)


def test_the_sensor_asks_for_one_run_of_each_tenant_with_a_job(
    installation: Installation, instance: dg.DagsterInstance, shop: Connection
) -> None:
    assert "no job" in tick(installation, instance).skip_reason.skip_message
    add_tenant(shop, "other")
    for tenant in (TENANT, TENANT, "other"):
        ask(shop, tenant=tenant)
    assert [request.tags[GENERATION_TENANT_TAG] for request in tick(installation, instance).run_requests] == [
        TENANT,
        "other",
    ]
    shop.execute("UPDATE tenants SET deleted_at = now() WHERE id = 'other'")
    (request,) = tick(installation, instance).run_requests
    assert request.run_config == {"ops": {"generate_recommendations": {"config": {"tenant": TENANT}}}}


def start_run(instance: dg.DagsterInstance, process: str) -> str:
    @dg.job(name=GENERATE)
    def job() -> None: ...

    tags = {GENERATION_TENANT_TAG: TENANT, PROCESS_TAG: process}
    return instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags).run_id


def test_a_run_that_goes_on_is_enough_and_one_that_died_is_replaced(
    installation: Installation, instance: dg.DagsterInstance, shop: Connection
) -> None:
    ask(shop)
    run_id = start_run(instance, this_process())
    assert run_id in tick(installation, instance).skip_reason.skip_message
    instance.delete_run(run_id)
    host, pid, start = this_process().rsplit(":", 2)
    dead = start_run(instance, f"{host}:{pid}:{int(start) - 1}")
    assert len(tick(installation, instance).run_requests) == 1
    record = instance.get_run_by_id(dead)
    assert record is not None and record.status == dg.DagsterRunStatus.FAILURE


def test_a_run_works_off_the_tenants_jobs_and_says_what_came_of_them(
    installation: Installation, instance: dg.DagsterInstance, shop: Connection, release: str
) -> None:
    add_users(shop, "ann", "bob")
    id_, impossible = ask(shop), ask(shop, algorithm="deep-learning")
    (request,) = tick(installation, instance).run_requests
    result = (
        build_definitions(installation)
        .resolve_job_def(GENERATE)
        .execute_in_process(instance=instance, run_config=request.run_config, tags=request.tags)
    )
    assert result.success
    assert (job(shop, id_)[0], job(shop, impossible)[0]) == ("completed", "failed")
    (event,) = result.asset_materializations_for_node("generate_recommendations")
    assert (event.asset_key.path, event.partition) == (["recommendation_records"], TENANT)
    assert event.metadata["recommendations"].value == 2 * COUNT
    seconds, speed = event.metadata["seconds"].value, event.metadata["users_per_second"].value
    assert seconds > 0 and speed == pytest.approx(2 / float(str(seconds)))
    assert not any(user in str(event.metadata) for user in ("ann", "bob"))
    record = instance.get_run_by_id(result.run_id)
    assert record is not None and record.tags[PROCESS_TAG] == this_process()
    assert "no job" in tick(installation, instance).skip_reason.skip_message
