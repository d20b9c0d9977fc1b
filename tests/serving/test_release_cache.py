"""The model server over releases in an object store: it keeps copies on its disk, whole and no more than it may."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.settings import PathSettings
from serving.contracts.releases import StoreListing
from serving.release import list_releases, prune, read_store, release_size, tenant_releases
from serving.release_cache import ReleaseCache
from tests.fixtures.model_server import model_server
from tests.fixtures.object_store import ObjectStore, faulty_proxy
from tests.fixtures.platform import wait_until
from tests.fixtures.releases import TENANT, publish_small

pytestmark = [pytest.mark.service, pytest.mark.fit]


@pytest.fixture
def home(object_store: ObjectStore) -> Path:
    return PathSettings().bentoml


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cache"


def copies(folder: Path) -> set[tuple[str, str]]:
    return {place.parts[-2:] for place in folder.glob("*/*")}  # type: ignore[misc]


def publish(home: Path, tmp_path: Path, tenant: str = TENANT) -> str:
    return publish_small(home, tmp_path / "work", tenant, families=("collaborative",))


def test_releases_are_listed_as_in_a_folder_and_old_ones_are_pruned(home: Path, tmp_path: Path) -> None:
    releases = [publish(home, tmp_path) for _ in range(2)]
    publish(home, tmp_path, "books")
    assert list_releases(home)[TENANT] == releases[::-1] == tenant_releases(home, TENANT)
    assert release_size(home, TENANT, releases[0]) > 1_000
    assert prune(TENANT, home=home, keep=1) == [releases[0]]
    assert read_store(home).releases[TENANT] == [releases[1]]
    prune("books", home=home, keep=0)
    assert "books" not in list_releases(home)


def test_polling_for_new_releases_takes_two_requests(
    home: Path, tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in (TENANT, "books"):
        publish(home, tmp_path, tenant)
    with faulty_proxy(object_store.endpoint) as (faults, proxy):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        found = read_store(home)
        faults.seen.clear()
        assert read_store(home) == found
        assert len(faults.seen) == 2
        newer = publish(home, tmp_path)
        assert read_store(home).releases[TENANT][0] == newer


def test_a_copy_is_fetched_once_survives_a_restart_and_goes_with_its_release(
    home: Path, folder: Path, tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish(home, tmp_path)
    with ReleaseCache(home, folder, 10**9).opened(TENANT, release) as copy:
        files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    with faulty_proxy(object_store.endpoint) as (faults, proxy):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        cache = ReleaseCache(home, folder, 10**9)
        with cache.opened(TENANT, release) as again:
            assert again == copy
        assert not [seen for seen in faults.seen if ".parts" in seen]
        cache.delete_unlisted(StoreListing({}, {TENANT: "unreadable for a moment"}))
        assert copies(folder) == {(TENANT, release)}
        cache.delete_unlisted(StoreListing({}))
    assert "release.json" in files and "items.parquet" in files
    assert copies(folder) == set()


def test_copies_are_bounded_and_one_in_use_stays(home: Path, folder: Path, tmp_path: Path) -> None:
    first, second, third = (publish(home, tmp_path) for _ in range(3))
    cache = ReleaseCache(home, folder, release_size(home, TENANT, first) * 3 // 2)
    with cache.opened(TENANT, first) as copy:
        os.utime(copy.parent, (0, 0))
        with cache.opened(TENANT, second):
            assert copies(folder) == {(TENANT, first), (TENANT, second)}
    with cache.opened(TENANT, third):
        assert copies(folder) == {(TENANT, third)}


def test_a_copy_that_arrives_cut_or_changed_is_never_kept(
    home: Path, folder: Path, tmp_path: Path, object_store: ObjectStore
) -> None:
    release = publish(home, tmp_path)
    part = next(key for key in object_store.object_keys() if key.endswith("items.parquet"))
    content, _ = object_store.bucket.read(part)
    for damaged in (content[:-1], content[:-1] + b"?"):
        object_store.bucket.put(part, damaged)
        with pytest.raises(OSError), ReleaseCache(home, folder, 10**9).opened(TENANT, release):
            pass
        assert not list(folder.rglob("items.parquet"))
    object_store.bucket.put(part, content)
    with ReleaseCache(home, folder, 10**9).opened(TENANT, release) as copy:
        assert (copy / "items.parquet").read_bytes() == content


def test_a_server_serves_what_is_published_to_the_bucket_and_drops_what_is_deleted(
    home: Path, tmp_path: Path, object_store: ObjectStore
) -> None:
    with model_server(object_store.state) as server:
        server.start()
        assert server.releases() == {}
        server.await_release(TENANT, publish(home, tmp_path))
        server.await_release(TENANT, publish(home, tmp_path))
        server.kill()
        server.start()
        server.await_release(TENANT, tenant_releases(home, TENANT)[0])
        prune(TENANT, home=home, keep=0)
        wait_until("the release to go", lambda: server.releases() == {})
        wait_until("its copies to go", lambda: not copies(server.paths.root / "release-cache"))
        assert "a-secret-of-the-tests" not in server.log
