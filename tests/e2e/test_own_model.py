"""A model of one's own, from outside the tree: installed, trained, tracked, promoted, released, served, asked for.

The package is the one of `docs/examples/own-model`; nothing here names a module of it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.plugins import plugged_in
from configs.settings import PathSettings
from serving.release import list_releases
from tests.api.conftest import Tenants, configuration_of, running
from tests.fixtures.backend import Backend
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.platform import ROOT
from tests.fixtures.portal import Portal
from tests.pipelines.conftest import TENANT
from tests.pipelines.test_retrain import GENRES, fill
from training.evaluation.stored_config import UnreadableConfig
from training.tracking.mlflow_store import Tracking

FAMILY = "pairwise"
WORK = f"""
from pipelines.defs.generation.steps import process_jobs
from pipelines.resources import Installation
print([job.problem or job.algorithm for job in process_jobs(Installation(), {TENANT!r}, lambda *_: None)])
"""
EXAMPLE = ROOT / "docs" / "examples" / "own-model"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed the package into, built from a copy."""
    source, target = tmp_path_factory.mktemp("own") / "model", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=120)
    return target


@dataclass
class Installation:
    """A platform with the package on the path of its processes."""

    url: str
    state: Path
    site: Path
    server: ModelServer


def run(installed: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # MLflow's library leaves there what another test has set.
    inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(installed), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def platform_with_it(
    installed: Path, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Trained by the pipeline's own command, and served."""
    state = tmp_path_factory.mktemp("state")
    fill(module_database_url)
    environment = {
        "DATABASE_URL": module_database_url,
        "RECOMMENDAI_STATE_DIR": str(state),
        "TRAIN_MAX_SECONDS": "2",
        "FIRST_MODEL_AFTER_INTERACTIONS": "100",
    }
    done = run(installed, "pipelines", "run", "--tenant", TENANT, **environment)
    assert done.returncode == 0, done.stderr[-5000:]
    with model_server(state) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(installed))
        server.start()
        server.await_release(TENANT, list_releases(server.paths.bentoml)[TENANT][0])
        yield Installation(module_database_url, state, installed, server)


@pytest.fixture
def backend(platform_with_it: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Backend]:
    """The API of an installation with the package, which it only reads the name of."""
    monkeypatch.syspath_prepend(platform_with_it.site)
    plugged_in.cache_clear()
    try:
        configuration = configuration_of(platform_with_it.url, tmp_path)
        key = Tenants(platform_with_it.url).key(TENANT, rate_limit=0)
        with running(configuration, serving=platform_with_it.server.settings) as client:
            client.headers.update(key)
            yield Backend(client, platform_with_it.url, TENANT)
    finally:
        plugged_in.cache_clear()
        monkeypatch.undo()


@pytest.mark.service
def test_every_promise_of_a_family_is_held_against_it(installed: Path) -> None:
    """The suite finds it by itself, as its author would run it; so are odd data and the truth of its evidence."""
    modules = ["tests/training/test_model_contract.py", "tests/training/test_odd_data.py"]
    done = run(installed, "pytest", "-q", "-k", FAMILY, "-p", "no:cacheprovider", *modules)
    assert done.returncode == 0, done.stdout[-5000:]
    passed = int(done.stdout.rpartition(" passed")[0].split()[-1])
    assert passed > 50, done.stdout[-500:]


def test_it_is_tracked_with_its_figures_and_passes_the_gate(platform_with_it: Installation) -> None:
    tracking = Tracking(f"sqlite:///{PathSettings(state_dir=platform_with_it.state).mlflow / 'mlflow.db'}")
    champion = tracking.champion(TENANT, FAMILY)
    assert champion is not None
    report = tracking.report(champion)
    popularity = tracking.report(tracking.version(TENANT, "popularity", "1"))
    reached, floor = report.estimate("ndcg@10", "warm"), popularity.metric("ndcg@10", "warm")
    assert reached is not None and floor is not None and reached.high is not None
    assert reached.high > floor
    assert isinstance(report.config, UnreadableConfig)  # the family is installed beside the platform, not here
    assert report.config.values["factors"] == 32


def test_the_api_answers_through_it_with_evidence(backend: Backend) -> None:
    liked = {genre: [f"{genre}-{number}" for number in range(4)] for genre in GENRES[:2]}
    lists = {}
    for genre, items in liked.items():
        backend.interact(f"fan-of-{genre}", *items)
        request = {"userId": f"fan-of-{genre}", "count": 8, "algorithm": FAMILY, "excludeSeen": "all"}
        answer = backend.client.post("/api/v1/recommend", json=request)
        assert answer.status_code == 200, answer.text
        assert "X-Recommendation-Degraded" not in answer.headers
        elements: list[dict[str, Any]] = answer.json()
        assert {element["algorithm"] for element in elements} == {FAMILY}
        named = {item for element in elements for item in element["evidence"]}
        assert named and named <= set(items)
        lists[genre] = [element["itemId"] for element in elements]
    for genre, items in lists.items():
        assert sum(item.startswith(genre) for item in items) > len(items) / 2, lists


def test_it_generates_in_bulk(backend: Backend, platform_with_it: Installation) -> None:
    liked = [f"{GENRES[0]}-{number}" for number in range(4)]
    backend.interact("bulk-reader", *liked)
    portal = Portal(backend.client, Tenants(platform_with_it.url))
    admin, client = portal.admin(TENANT), portal.at("192.0.2.1").client  # without the key of the backend's client
    asked = {"algorithm": FAMILY, "userSegment": "all", "count": 5}
    accepted = client.post("/api/recommendations/generate", json=asked, headers=admin)
    assert accepted.status_code == 202, accepted.text
    environment = {"DATABASE_URL": platform_with_it.url, "RECOMMENDAI_STATE_DIR": str(platform_with_it.state)}
    done = subprocess.run(
        [sys.executable, "-c", WORK],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(platform_with_it.site), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() == f"['{FAMILY}']", done.stderr[-2000:] + done.stdout
    query = {"userId": "bulk-reader", "algorithm": FAMILY}
    records = client.get("/api/recommendations", params=query, headers=admin).json()["data"]
    assert len(records) == 5
    assert {record["algorithm"] for record in records} == {FAMILY}
    refused = client.post("/api/recommendations/generate", json={"algorithm": "magic"}, headers=admin)
    assert refused.status_code == 400 and f"or '{FAMILY}'" in refused.json()["errors"][0]["message"]


def test_the_schema_and_the_refusal_name_it(backend: Backend) -> None:
    schemas = backend.client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["RecommendRequest"]["properties"]["algorithm"]["enum"][-1] == FAMILY
    request = {"userId": "ann", "count": 1, "algorithm": "magic"}
    problem = backend.post("/api/v1/recommend", request, status=400)
    assert problem["errors"][0]["field"] == "algorithm"
    assert FAMILY in problem["errors"][0]["message"]


def test_an_installation_without_it_does_not_know_the_name(platform_with_it: Installation, tmp_path: Path) -> None:
    key = Tenants(platform_with_it.url).key(TENANT, rate_limit=0)
    with running(configuration_of(platform_with_it.url, tmp_path)) as client:
        request = {"userId": "ann", "count": 1, "algorithm": FAMILY}
        assert client.post("/api/v1/recommend", json=request, headers=key).status_code == 400
