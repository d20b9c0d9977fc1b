"""An installation of an earlier commit, upgraded in place: it serves what it served, and its next training goes on.

The fixtures are real: `tests/fixtures/upgrade/README.md` says what is in them and how they were made.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psycopg
import pytest
from pydantic import SecretStr

from configs.pipelines import PipelineSettings
from configs.postgres import DatabaseSettings
from configs.tracking import TrackingSettings
from feature_store.lake import TenantLake
from pipelines.definitions import build_definitions
from pipelines.instance import open_instance
from pipelines.jobs import RETRAIN
from pipelines.resources import Installation
from tests.fixtures.live import api_process
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.platform import ROOT, wait_until
from tests.fixtures.postgres import empty_database
from tests.fixtures.search import files_with, tables_with
from tests.fixtures.upgrade.restore import OldInstallation, restore
from training.evaluation.report import EvaluationReport
from training.models.contract import ModelConfig
from training.models.registry import families, family_class

COMMITS = ("965fd7a",)
ALGORITHMS = ("collaborative", "content-based", "deep-learning", "hybrid")
RETRAINED = "shop"
NEW_ITEM = {"id": "bread-new", "metadata": {"title": "crusty rye loaf", "shelf": "bread", "tags": ["rye"], "price": 2}}


@dataclass
class Upgraded:
    """The old installation under today's code, and what it answered before anything was trained."""

    old: OldInstallation
    revision: str
    server: ModelServer
    http: httpx.Client
    lists: dict[tuple[str, str, str], httpx.Response]  # by tenant, algorithm and user

    @property
    def expected(self) -> dict[str, Any]:
        return self.old.expected

    def key(self, tenant: str) -> dict[str, str]:
        return {"X-API-Key": self.expected["keys"][tenant]}

    def admin(self) -> dict[str, str]:
        login = self.http.post("/api/auth/login", json=self.expected["admin"])
        assert login.status_code == 200, login.text
        return {"Authorization": f"Bearer {login.json()['token']}"}

    def recommend(self, tenant: str, user: str, **body: Any) -> httpx.Response:
        answer = self.http.post(
            "/api/v1/recommend", json={"userId": user, "count": 10, **body}, headers=self.key(tenant)
        )
        assert answer.status_code == 200, answer.text
        return answer

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.old.database_url) as connection:
            return connection.execute(query, parameters).fetchall()


@dataclass
class Retrained:
    """The main job of one tenant, run by today's code."""

    installation: Installation
    result: dg.ExecuteInProcessResult

    def value(self, asset: str) -> Any:
        return self.result.output_for_node(asset)


@pytest.fixture(scope="module", params=COMMITS)
def upgraded(
    request: pytest.FixtureRequest, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Upgraded]:
    state = tmp_path_factory.mktemp("state")
    with empty_database(postgres_url) as database_url, model_server(state) as server:
        old = restore(request.param, state, database_url)
        revision = migrate(old)
        server.start()
        wait_until("the old releases", lambda: len(server.releases()) == len(old.expected["tenants"]))
        environment = {
            "JWT_SECRET": old.expected["jwt_secret"],
            "SERVING_URL": server.url,
            "SERVING_PATIENCE_SECONDS": "30",
        }
        with (
            api_process(database_url, state, **environment) as api,
            httpx.Client(base_url=api.url, timeout=30) as http,
        ):
            found = Upgraded(old, revision, server, http, {})
            for tenant in old.expected["tenants"]:
                for algorithm, by_user in old.lists(tenant).items():
                    for user in by_user:
                        found.lists[tenant, algorithm, user] = found.recommend(tenant, user, algorithm=algorithm)
            yield found


@pytest.fixture(scope="module")
def retrained(upgraded: Upgraded) -> Iterator[Retrained]:
    key = upgraded.key(RETRAINED)
    assert upgraded.http.post("/api/items", json=NEW_ITEM, headers=key).status_code == 201
    events = [
        {"userId": f"customer-{user}", "itemId": f"bread-{user % 5}", "interactionType": "purchase"}
        for user in range(100)
    ]
    answer = upgraded.http.post("/api/v1/interactions/batch", json={"interactions": events}, headers=key)
    assert answer.json()["failed"] == 0, answer.text
    installation = Installation(
        paths=upgraded.old.paths,
        database=DatabaseSettings(url=SecretStr(upgraded.old.database_url)),
        pipeline=PipelineSettings(train_seconds=4, train_threads=1),
        tracking=TrackingSettings(uri=None),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", "")  # opening the instance sets it for this process
        with open_instance(installation.paths) as instance:
            job = build_definitions(installation).resolve_job_def(RETRAIN)
            yield Retrained(installation, job.execute_in_process(instance=instance, partition_key=RETRAINED))


def migrate(old: OldInstallation) -> str:
    """The revision that `python -m api migrate` says the database has now."""
    environment = {
        **os.environ,
        "DATABASE_URL": old.database_url,
        "RECOMMENDAI_STATE_DIR": str(old.paths.root),
    }
    done = subprocess.run(
        [sys.executable, "-m", "api", "migrate"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.strip().split()[-1]


def leaves(value: Any) -> Counter[str]:
    """The values of a nested document, whatever their keys, with how often each is there."""
    if isinstance(value, dict):
        return sum((leaves(each) for each in value.values()), Counter())
    return Counter([repr(value)])


def test_the_database_is_at_the_newest_revision(upgraded: Upgraded) -> None:
    scripts = (ROOT / "api/database/migrations/versions").glob("*.py")
    assert upgraded.revision == max(script.name.partition("_")[0] for script in scripts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("tenant", ["shop", "library"])
def test_the_old_release_ranks_and_explains_as_before(upgraded: Upgraded, tenant: str, algorithm: str) -> None:
    expected = upgraded.expected["tenants"][tenant]
    for user, rows in expected["lists"][algorithm].items():
        answer = upgraded.lists[tenant, algorithm, user]
        assert "X-Recommendation-Degraded" not in answer.headers
        assert answer.headers["X-Model-Release"] == expected["release"]
        found = answer.json()
        assert [row["itemId"] for row in found] == [row["itemId"] for row in rows]
        assert [row["score"] for row in found] == pytest.approx([row["score"] for row in rows], abs=1e-5)
        assert [row["evidence"] for row in found] == [row["evidence"] for row in rows]
        assert {row["algorithm"] for row in found} == {row["algorithm"] for row in rows}


@pytest.mark.parametrize("tenant", ["shop", "library"])
def test_similar_items_are_as_before(upgraded: Upgraded, tenant: str) -> None:
    expected = upgraded.expected["tenants"][tenant]["similar"]
    body = {"itemId": expected["itemId"], "count": 5}
    answer = upgraded.http.post("/api/v1/similar", json=body, headers=upgraded.key(tenant)).json()
    assert [row["itemId"] for row in answer] == [row["itemId"] for row in expected["answer"]]
    assert [row["score"] for row in answer] == pytest.approx([row["score"] for row in expected["answer"]], abs=1e-5)


def test_hidden_items_stay_hidden(upgraded: Upgraded) -> None:
    hidden = upgraded.expected["hidden"]
    for item in hidden:
        assert upgraded.http.get(f"/api/items/{item}", headers=upgraded.key("shop")).json()["isActive"] is False
    for algorithm in ALGORITHMS:
        rows = upgraded.recommend("shop", "nobody", count=100, algorithm=algorithm).json()
        assert len(rows) > 50
        assert not {row["itemId"] for row in rows} & set(hidden)


def test_erased_users_stay_erased(upgraded: Upgraded) -> None:
    for user in upgraded.expected["erased"]:
        assert tables_with(upgraded.old.database_url, user) == {"tombstones"}


def test_a_tenant_without_a_model_is_still_served(upgraded: Upgraded) -> None:
    answer = upgraded.recommend("empty", "anybody")
    assert "X-Recommendation-Degraded" in answer.headers
    assert [row["itemId"] for row in answer.json()] == ["lone"]


def test_a_request_that_the_old_code_answered_is_answered_the_same(upgraded: Upgraded) -> None:
    kept = upgraded.expected["idempotent"]
    headers = {**upgraded.key("shop"), "Idempotency-Key": kept["key"]}
    answer = upgraded.http.post("/api/v1/interactions", json=kept["body"], headers=headers)
    assert answer.status_code == 201
    assert answer.json() == kept["answer"]


def test_the_subscription_is_as_it_was(upgraded: Upgraded) -> None:
    answer = upgraded.http.get("/api/billing/current", headers=upgraded.admin())
    assert answer.json() == upgraded.expected["billing"]
    assert upgraded.sql("SELECT overage_cap_cents FROM billing_settings WHERE tenant_id = 'shop'") == [(1250,)]


def test_the_next_training_compares_with_the_old_champions(retrained: Retrained) -> None:
    assert retrained.result.success
    found = retrained.value("evaluation")
    champions = [champion["report"] for champion in found["champions"].values()]
    reports = [EvaluationReport.model_validate(report) for report in (*found["reports"].values(), *champions)]
    windows = {report.split_hash for report in reports}
    assert set(found["champions"]) == set(families())
    assert len(windows) == 1


def test_the_old_champions_are_rebuilt_with_their_own_configurations(upgraded: Upgraded, retrained: Retrained) -> None:
    old_release = upgraded.expected["tenants"][RETRAINED]["release"]
    folder = upgraded.old.paths.bentoml / "models" / f"release-{RETRAINED}" / old_release
    for family in ALGORITHMS:
        (described,) = folder.glob(f"models/{family}-*/model.json")
        written = json.loads(described.read_text())["config"]
        report = EvaluationReport.model_validate(retrained.value("evaluation")["champions"][family]["report"])
        config = report.config
        assert isinstance(config, ModelConfig), config
        assert config == family_class(family).Config.model_validate(written)
        assert not leaves(written) - leaves(config.model_dump(mode="json")), family


def test_the_promotion_is_decided_with_a_reason(retrained: Retrained) -> None:
    decisions = retrained.value("champions")
    assert set(decisions) == set(families())
    # What was fitted in seconds may miss its floor, which is decided before the champion is looked at.
    reasons = [decision["reason"] for decision in decisions.values()]
    assert all("the floor" in reason or "of the same" in reason for reason in reasons), reasons
    assert any("the champion reaches" in reason for reason in reasons), reasons
    assert not [reason for reason in reasons if "no champion" in reason]


def test_a_new_release_is_served_after_it(upgraded: Upgraded, retrained: Retrained) -> None:
    release = retrained.value("release")["release"]
    assert release > upgraded.expected["tenants"][RETRAINED]["release"]
    upgraded.server.await_release(RETRAINED, release)
    for algorithm in ALGORITHMS:
        answer = upgraded.recommend(RETRAINED, "customer-0", algorithm=algorithm)
        assert answer.headers["X-Model-Release"] == release
        assert "X-Recommendation-Degraded" not in answer.headers
        assert len(answer.json()) == 10
    rows = upgraded.recommend(RETRAINED, "nobody", count=100, algorithm="content-based").json()
    assert NEW_ITEM["id"] in {row["itemId"] for row in rows}


def test_the_other_tenants_release_still_serves_after_it(upgraded: Upgraded, retrained: Retrained) -> None:
    assert retrained.result.success
    answer = upgraded.recommend("library", "reader-1")
    assert answer.headers["X-Model-Release"] == upgraded.expected["tenants"]["library"]["release"]


def test_an_erasure_that_waited_is_done_by_the_next_export(upgraded: Upgraded, retrained: Retrained) -> None:
    paths = retrained.installation.paths
    assert TenantLake(paths.lake, RETRAINED).cursor().rows > 0
    for user in upgraded.expected["erased"]:
        assert files_with(paths.root, user) <= {Path("journal/erasures.jsonl")}  # which a restore replays
