"""The whole path with lake, features and releases in a bucket: from interactions to answers, and to the deletion."""

from pathlib import Path

import dagster as dg
import httpx
import msgspec
import pytest

from configs.pipelines import PipelineSettings
from configs.settings import PathSettings
from configs.tracking import TrackingSettings
from pipelines.defs.ingestion.tenant_deletion import delete_tenant_files, files_of_tenant
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from serving.contracts.messages import BATCH_PATH, BatchRequest, BatchResponse, RecommendQuery
from serving.contracts.protocol import NEWEST, SPOKEN
from serving.release import list_releases, newest_manifest
from tests.fixtures.mlflow_store import mlflow_store
from tests.fixtures.model_server import ModelServer, model_server
from tests.fixtures.object_store import ObjectStore
from tests.fixtures.platform import wait_until
from tests.fixtures.releases import likes
from tests.pipelines.conftest import TENANT
from tests.pipelines.test_retrain import fill, run

pytestmark = [pytest.mark.service, pytest.mark.fit]


def test_a_tenant_in_an_object_store_from_its_interactions_to_its_deletion(
    object_store: ObjectStore, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    paths = PathSettings()
    installation = Installation(
        pipeline=PipelineSettings(first_model_after=100, train_seconds=1, train_threads=1),
        tracking=TrackingSettings(uri=mlflow_store(tmp_path)),
    )
    fill(database_url)
    home = tmp_path / "dagster"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
        instance.add_dynamic_partitions(TENANTS, [TENANT])
        assert run(installation, instance).success
    assert {key.partition("/")[0] for key in object_store.object_keys()} == {"lake", "features", "bentoml", ".parts"}
    for place in (paths.lake, paths.features, paths.bentoml):
        assert not [path for path in place.rglob("*") if path.is_file() and path.name != ".lock"]
    with model_server(paths.root) as server:
        server.start()
        server.await_release(TENANT, list_releases(paths.bentoml)[TENANT][0])
        assert recommended(server)
        delete_tenant_files(installation, TENANT)
        wait_until("the release to go", lambda: server.releases() == {})
    assert files_of_tenant(paths, TENANT) == []
    assert not [key for key in object_store.object_keys() if TENANT in key]
    assert newest_manifest(paths.bentoml, TENANT) is None


def recommended(server: ModelServer) -> list[str]:
    """What the server recommends to somebody who liked one drama."""
    manifest = newest_manifest(server.paths.bentoml, TENANT)
    assert manifest is not None
    query = RecommendQuery("collaborative", 5, likes("drama-1"))
    request = BatchRequest(TENANT, manifest.catalogue_version, [query])
    headers = {"authorization": str(server.settings.authorization), "content-type": SPOKEN[NEWEST].media_type}
    answer = httpx.post(server.url + BATCH_PATH, content=msgspec.msgpack.encode(request), headers=headers, timeout=60)
    (items,) = msgspec.msgpack.decode(answer.raise_for_status().content, type=BatchResponse).answers
    assert isinstance(items, list)
    return [item.item_id for item in items]
