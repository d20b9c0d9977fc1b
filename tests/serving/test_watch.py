"""The newest valid release of every tenant serves."""

from pathlib import Path

import pytest

from serving.predictor import Predictor
from serving.release import list_releases, prune, release_folder
from serving.watch import ReleaseWatch, load_release
from tests.fixtures.platform import wait_until
from tests.fixtures.releases import TENANT, publish_small

pytestmark = pytest.mark.fit


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def watch_over(home: Path, poll_seconds: float = 0.05) -> ReleaseWatch:
    def load(tenant_id: str, release: str) -> Predictor:
        return load_release(release_folder(home, tenant_id, release), tenant_id, 200)

    return ReleaseWatch(lambda: list_releases(home), load, poll_seconds)


def served(watch: ReleaseWatch) -> dict[str, str]:
    return {tenant: predictor.manifest.release for tenant, predictor in watch.predictors.items()}


def break_release(home: Path, release: str) -> None:
    (release_folder(home, TENANT, release) / "items.parquet").write_bytes(b"broken")


def test_ready_also_without_a_release(home: Path) -> None:
    watch = watch_over(home)
    assert not watch.ready
    watch.refresh()
    assert watch.ready
    assert served(watch) == {}


def test_a_newer_release_replaces_the_served_one(home: Path, tmp_path: Path) -> None:
    watch = watch_over(home)
    for _ in range(2):
        newest = publish_small(home, tmp_path / "work")
        watch.refresh()
        assert served(watch) == {TENANT: newest}


def test_an_unchanged_store_loads_nothing_again(home: Path, tmp_path: Path) -> None:
    publish_small(home, tmp_path / "work")
    watch = watch_over(home)
    watch.refresh()
    held = watch.predictors[TENANT]
    watch.refresh()
    assert watch.predictors[TENANT] is held


def test_a_broken_release_is_refused_and_the_one_before_it_serves(home: Path, tmp_path: Path) -> None:
    sound = publish_small(home, tmp_path / "work")
    broken = publish_small(home, tmp_path / "work")
    break_release(home, broken)
    watch = watch_over(home)
    watch.refresh()
    assert served(watch) == {TENANT: sound}
    watch.refresh()
    repaired = publish_small(home, tmp_path / "work")
    watch.refresh()
    assert served(watch) == {TENANT: repaired}


def test_a_release_that_was_taken_back_gives_way_to_the_one_before(home: Path, tmp_path: Path) -> None:
    first = publish_small(home, tmp_path / "work")
    second = publish_small(home, tmp_path / "work")
    watch = watch_over(home)
    watch.refresh()
    (release_folder(home, TENANT, second)).rename(tmp_path / "taken-back")
    watch.refresh()
    assert served(watch) == {TENANT: first}


def test_a_tenant_that_left_the_store_is_dropped(home: Path, tmp_path: Path) -> None:
    publish_small(home, tmp_path / "work")
    kept = publish_small(home, tmp_path / "work", tenant_id="books")
    watch = watch_over(home)
    watch.refresh()
    prune(TENANT, home=home, keep=0)
    watch.refresh()
    assert served(watch) == {"books": kept}


def test_a_release_under_another_tenants_name_is_refused(home: Path, tmp_path: Path) -> None:
    release = publish_small(home, tmp_path / "work")
    folder = release_folder(home, TENANT, release).parent
    folder.rename(folder.with_name("release-books"))
    watch = watch_over(home)
    watch.refresh()
    assert served(watch) == {}


def test_the_thread_outlives_a_store_that_cannot_be_read(home: Path, tmp_path: Path) -> None:
    release = publish_small(home, tmp_path / "work")
    failures = [OSError("gone for a moment")] * 3

    def find() -> dict[str, list[str]]:
        if failures:
            raise failures.pop()
        return list_releases(home)

    def load(tenant_id: str, release: str) -> Predictor:
        return load_release(release_folder(home, tenant_id, release), tenant_id, 200)

    watch = ReleaseWatch(find, load, 0.01)
    watch.start()
    try:
        wait_until("the release", lambda: served(watch) == {TENANT: release})
    finally:
        watch.stop()
