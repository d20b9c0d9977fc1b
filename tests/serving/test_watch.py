"""The newest valid release of every tenant serves."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from serving.contracts.releases import BrokenReleaseError, StoreListing
from serving.predictor import Predictor
from serving.release import prune, read_store, release_folder
from serving.watch import FIRST_RETRY_SECONDS, MAX_OVERDUE, ReleaseWatch, load_release
from tests.fixtures.platform import wait_until
from tests.fixtures.releases import TENANT, publish_small

pytestmark = pytest.mark.fit


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def watch_over(home: Path, poll_seconds: float = 0.05) -> ReleaseWatch:
    def load(tenant_id: str, release: str) -> Predictor:
        return load_release(release_folder(home, tenant_id, release), tenant_id, 200)

    return ReleaseWatch(lambda: read_store(home), load, poll_seconds)


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

    def find() -> StoreListing:
        if failures:
            raise failures.pop()
        return read_store(home)

    def load(tenant_id: str, release: str) -> Predictor:
        return load_release(release_folder(home, tenant_id, release), tenant_id, 200)

    watch = ReleaseWatch(find, load, 0.01)
    watch.start()
    try:
        wait_until("the release", lambda: served(watch) == {TENANT: release})
    finally:
        watch.stop()


class Fitted:
    """A predictor, as far as the watch looks at one."""

    def __init__(self, release: str) -> None:
        self.manifest = self.info = self
        self.release, self.families = release, dict[str, str]()


class Store:
    """Releases that load as a test says: `loads[release]` is called instead of loading it."""

    def __init__(self, releases: dict[str, list[str]]) -> None:
        self.releases = releases
        self.loads: dict[str, Callable[[], object]] = {}
        self.loaded: list[str] = []
        self.unreadable: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.now = 0.0

    def watch(self, **options: Any) -> ReleaseWatch:
        return ReleaseWatch(
            lambda: StoreListing(dict(self.releases), dict(self.unreadable)),
            self._load,
            60,
            size=lambda tenant, release: self.sizes.get(release, 0),
            clock=lambda: self.now,
            **options,
        )

    def _load(self, tenant_id: str, release: str) -> Predictor:
        self.loaded.append(release)
        self.loads.get(release, lambda: None)()
        return cast(Predictor, Fitted(release))


def raising(error: BaseException) -> Callable[[], object]:
    def load() -> object:
        raise error

    return load


@pytest.mark.parametrize(
    "error",
    [BrokenReleaseError("x"), MemoryError(), RecursionError(), OSError("disk"), SystemExit(3), KeyboardInterrupt()],
    ids=repr,
)
def test_a_release_that_fails_with_anything_at_all_leaves_the_watch_going_for_the_others(error: BaseException) -> None:
    store = Store({"films": ["films-2", "films-1"], "books": ["books-1"]})
    store.loads["films-2"] = raising(error)
    watch = store.watch()
    watch.refresh()
    assert served(watch) == {"films": "films-1", "books": "books-1"}
    store.releases["books"].insert(0, "books-2")
    watch.refresh()
    assert served(watch) == {"films": "films-1", "books": "books-2"}


def test_a_release_that_failed_for_lack_of_memory_is_tried_again_and_a_broken_one_is_not() -> None:
    store = Store({"films": ["films-2", "films-1"], "books": ["books-2", "books-1"]})
    store.loads = {"films-2": raising(MemoryError()), "books-2": raising(BrokenReleaseError("x"))}
    watch = store.watch()
    for _ in range(50):
        watch.refresh()
    assert sorted(store.loaded) == ["books-1", "books-2", "films-1", "films-2"]  # not at every look
    store.loads.clear()
    store.now = FIRST_RETRY_SECONDS
    watch.refresh()
    assert served(watch) == {"films": "films-2", "books": "books-1"}
    assert store.loaded.count("books-2") == 1


def test_a_release_that_loads_without_end_does_not_keep_the_others_from_being_loaded() -> None:
    store = Store({"huge": ["huge-1"], "films": ["films-1"]})
    released = threading.Event()
    store.loads["huge-1"] = released.wait
    store.sizes["films-1"] = 1  # so that the huge one comes first
    watch = store.watch(load_seconds=0.05)
    watch.refresh()
    assert watch.ready
    assert served(watch) == {"films": "films-1"}
    store.releases["films"].insert(0, "films-2")
    watch.refresh()
    assert served(watch) == {"films": "films-2"}
    assert store.loaded.count("huge-1") == 1
    released.set()

    def serves_it() -> bool:
        watch.refresh()
        return served(watch) == {"films": "films-2", "huge": "huge-1"}

    wait_until("the huge release", serves_it)


def test_only_so_many_loads_run_beside_each_other() -> None:
    store = Store({f"tenant-{number}": [f"release-{number}"] for number in range(MAX_OVERDUE + 3)})
    released = threading.Event()
    store.loads = dict.fromkeys((f"release-{number}" for number in range(MAX_OVERDUE + 3)), released.wait)
    watch = store.watch(load_seconds=0.01)
    for _ in range(3):
        watch.refresh()
    assert len(store.loaded) == MAX_OVERDUE
    released.set()

    def serves_all() -> bool:
        watch.refresh()
        return len(served(watch)) == MAX_OVERDUE + 3

    wait_until("all releases", serves_all)


def test_tenants_without_a_release_come_first_and_small_releases_before_large_ones() -> None:
    store = Store({"served": ["served-1"]})
    watch = store.watch()
    watch.refresh()
    store.loaded.clear()
    store.releases = {"served": ["served-2", "served-1"], "large": ["large-1"], "small": ["small-1"]}
    store.sizes = {"served-2": 1, "large-1": 3, "small-1": 2}
    watch.refresh()
    assert store.loaded == ["small-1", "large-1", "served-2"]


def test_what_is_refused_is_remembered_only_while_it_is_in_the_store() -> None:
    store = Store({})
    watch = store.watch()
    for number in range(100):
        release = f"films-{number}"
        store.loads[release] = raising(BrokenReleaseError("x"))
        store.releases = {"films": [release]}
        watch.refresh()
    assert len(watch._refusals) == 1


def test_a_tenant_whose_folder_cannot_be_read_keeps_what_it_has_and_delays_nobody(home: Path, tmp_path: Path) -> None:
    release = publish_small(home, tmp_path / "work")
    watch = watch_over(home)
    watch.refresh()
    pointer = release_folder(home, TENANT, release).parent / "latest"
    said = pointer.read_text()
    pointer.unlink()
    pointer.mkdir()  # reading it raises, also for root
    other = publish_small(home, tmp_path / "work", tenant_id="books")
    assert read_store(home).unreadable.keys() == {TENANT}
    watch.refresh()
    assert served(watch) == {TENANT: release, "books": other}
    pointer.rmdir()
    pointer.write_text(said)
    newer = publish_small(home, tmp_path / "work")
    watch.refresh()
    assert served(watch) == {TENANT: newer, "books": other}
