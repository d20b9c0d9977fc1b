"""Keeps the newest valid release of every tenant loaded, and looks for newer ones in the background.

No tenant's release keeps the others' from being loaded. Each is loaded in a thread of its own, small ones first. A load
that takes longer than `LOAD_SECONDS` goes on beside the next ones, and its release serves once it is there. A release
that fails with anything at all is refused, and the next newest serves.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from serving.contracts.releases import BrokenReleaseError, StoreListing
from serving.figures import count_refusal
from serving.predictor import Predictor

LOAD_SECONDS = 30.0
"""How long the other tenants wait for the load of one release."""
MAX_OVERDUE = 4
"""Loads that go on beside the current one. Each may need as much memory as a release, so there are no more."""
FIRST_RETRY_SECONDS = 5.0
MAX_RETRY_SECONDS = 600.0

log = structlog.get_logger(__name__)

Load = Callable[[str, str], Predictor]


@dataclass(slots=True)
class _Refusal:
    """Why a release is not loaded: it is broken for ever, or loading it failed a moment ago and is tried again."""

    failures: int = 0
    retry_at: float = float("inf")


class _Loading:
    """One load in a thread of its own."""

    def __init__(self, load: Load, tenant_id: str, release: str) -> None:
        self.tenant_id, self.release = tenant_id, release
        self.predictor: Predictor | None = None
        self.error: BaseException | None = None
        self._done = threading.Event()
        self._load = load
        threading.Thread(target=self._run, name=f"load-{tenant_id}", daemon=True).start()

    def finished(self, seconds: float) -> bool:
        """Wait so long. Returns whether the load has ended."""
        return self._done.wait(seconds)

    def _run(self) -> None:
        try:
            self.predictor = self._load(self.tenant_id, self.release)
        except BaseException as error:  # a model may do anything while it loads, such as call sys.exit
            self.error = error
        finally:
            self._done.set()


class ReleaseWatch:
    """The loaded releases, one per tenant, and the thread that replaces them.

    A newer release is loaded while the old one still serves. Then one reference is swapped, and the old release is
    freed when its last answer is done. A broken release is logged and not tried again. One whose load failed for
    another reason, such as a lack of memory, is tried again after a pause that doubles.
    """

    def __init__(
        self,
        find: Callable[[], StoreListing],
        load: Load,
        poll_seconds: float,
        *,
        size: Callable[[str, str], int] = lambda tenant_id, release: 0,
        load_seconds: float = LOAD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        find: reads the store. load: (tenant, release) -> predictor. size: (tenant, release) -> bytes; smaller first.
        """
        self._find = find
        self._load = load
        self._poll_seconds = poll_seconds
        self._size = size
        self._load_seconds = load_seconds
        self._clock = clock
        self._refusals: dict[tuple[str, str], _Refusal] = {}  # of releases that are in the store
        self._overdue: dict[str, _Loading] = {}  # by tenant
        self._loaded: dict[str, str] = {}  # release by tenant
        self._unreadable: frozenset[str] = frozenset()
        self._predictors: dict[str, Predictor] = {}
        self._read = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="release-watch", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether the store has been read once, even if it held no release."""
        return self._read

    @property
    def predictors(self) -> dict[str, Predictor]:
        """The loaded predictors by tenant. The mapping is replaced and never changed, so a reader needs no lock."""
        return self._predictors

    @property
    def size(self) -> int:
        """Bytes of the files of all loaded releases. It reads their sizes."""
        return sum(self._size(tenant_id, release) for tenant_id, release in dict(self._loaded).items())

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. A load in progress is finished first, unless it is overdue."""
        self._stop.set()
        self._thread.join()

    def refresh(self) -> None:
        """Read the store once and load newer releases."""
        listing = self._find()
        self._forget(listing)
        for loading in list(self._overdue.values()):
            if loading.finished(0):
                del self._overdue[loading.tenant_id]
                self._settle(loading, listing)
        for tenant_id in sorted(listing.releases, key=lambda tenant_id: self._urgency(tenant_id, listing)):
            while not self._stop.is_set() and (release := self._wanted(tenant_id, listing)) is not None:
                self._refresh_tenant(tenant_id, release, listing)
        self._read = True

    def _forget(self, listing: StoreListing) -> None:
        """Drop what is not in the store any more. What cannot be read now stays as it is."""
        unreadable = frozenset(listing.unreadable)
        if unreadable != self._unreadable:
            log.error("releases not readable", reasons=listing.unreadable)
            self._unreadable = unreadable
        gone = self._predictors.keys() - listing.releases.keys() - unreadable
        if gone:
            log.info("releases gone", tenants=sorted(gone))
            self._predictors = {tenant: held for tenant, held in self._predictors.items() if tenant not in gone}
            self._loaded = {tenant: release for tenant, release in self._loaded.items() if tenant not in gone}
        stored = {(tenant_id, release) for tenant_id, releases in listing.releases.items() for release in releases}
        self._refusals = {
            key: refusal for key, refusal in self._refusals.items() if key in stored or key[0] in unreadable
        }

    def _urgency(self, tenant_id: str, listing: StoreListing) -> tuple[bool, int]:
        """Tenants without a loaded release come first, and small releases before large ones."""
        release = self._wanted(tenant_id, listing)
        return tenant_id in self._predictors, self._size(tenant_id, release) if release is not None else 0

    def _wanted(self, tenant_id: str, listing: StoreListing) -> str | None:
        """The release to load now: the newest that is not refused. None where it is held or is being loaded."""
        if tenant_id in self._overdue or len(self._overdue) >= MAX_OVERDUE:
            return None
        for release in listing.releases[tenant_id]:
            if self._loaded.get(tenant_id) == release:
                return None
            refusal = self._refusals.get((tenant_id, release))
            if refusal is None or self._clock() >= refusal.retry_at:
                return release
        return None

    def _refresh_tenant(self, tenant_id: str, release: str, listing: StoreListing) -> None:
        loading = _Loading(self._load, tenant_id, release)
        if loading.finished(self._load_seconds):
            self._settle(loading, listing)
        else:
            self._overdue[tenant_id] = loading
            log.error("release takes long to load", tenant_id=tenant_id, release=release, overdue=len(self._overdue))

    def _settle(self, loading: _Loading, listing: StoreListing) -> None:
        """Serve what was loaded, or refuse it."""
        tenant_id, release = loading.tenant_id, loading.release
        if loading.predictor is not None:
            if release in listing.releases.get(tenant_id, [release]):  # else it was taken back while it was loaded
                self._refusals.pop((tenant_id, release), None)
                self._predictors = {**self._predictors, tenant_id: loading.predictor}
                self._loaded[tenant_id] = release
                families = loading.predictor.info.families
                log.info("release loaded", tenant_id=tenant_id, release=release, families=families)
            return
        refusal = self._refusals.setdefault((tenant_id, release), _Refusal())
        refusal.failures += 1
        count_refusal()
        if not isinstance(loading.error, BrokenReleaseError):
            pause = min(FIRST_RETRY_SECONDS * 2 ** min(refusal.failures - 1, 10), MAX_RETRY_SECONDS)
            refusal.retry_at = self._clock() + pause
        log.error("release refused", tenant_id=tenant_id, release=release, reason=repr(loading.error))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except Exception:  # the store may be unreadable for a moment; the watch must go on
                log.exception("release store not readable")
            self._stop.wait(self._poll_seconds)


def load_release(folder: Path, tenant_id: str, max_events: int) -> Predictor:
    """The predictor of a release folder. Raises BrokenReleaseError, also for a release of another tenant."""
    predictor = Predictor.load(folder, max_events)
    if predictor.manifest.tenant_id != tenant_id:
        raise BrokenReleaseError(f"{folder} is a release of another tenant")
    return predictor
