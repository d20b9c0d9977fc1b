"""Watches the store for newer releases and keeps the newest sound one of every tenant loaded."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from serving.contracts.releases import BrokenReleaseError
from serving.predictor import Predictor

log = structlog.get_logger(__name__)

Releases = Mapping[str, list[str]]


class ReleaseWatch:
    """The loaded releases, one per tenant, and the thread that replaces them.

    A newer release is loaded beside the old one; then one reference is swapped, and the old one goes when the last
    answer made from it is done. A release that cannot be loaded is refused and logged, and the one before it serves.
    """

    def __init__(
        self,
        find: Callable[[], Releases],
        load: Callable[[str, str], Predictor],
        poll_seconds: float,
    ) -> None:
        """find: ids of complete releases by tenant, newest first; load: (tenant, release) -> its predictor."""
        self._find = find
        self._load = load
        self._poll_seconds = poll_seconds
        self._refused: set[tuple[str, str]] = set()
        self._predictors: dict[str, Predictor] = {}
        self._read = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="release-watch", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether the store has been read once; it may have held no release."""
        return self._read

    @property
    def predictors(self) -> dict[str, Predictor]:
        """What is loaded, by tenant. The mapping is replaced, never changed."""
        return self._predictors

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a load in progress is finished first."""
        self._stop.set()
        self._thread.join()

    def refresh(self) -> None:
        """Look into the store once, and load what is newer."""
        found = self._find()
        for tenant_id, releases in found.items():
            self._refresh_tenant(tenant_id, releases)
        gone = self._predictors.keys() - found.keys()
        if gone:
            log.info("releases gone", tenants=sorted(gone))
            self._predictors = {tenant: held for tenant, held in self._predictors.items() if tenant not in gone}
        self._read = True

    def _refresh_tenant(self, tenant_id: str, releases: list[str]) -> None:
        held = self._predictors.get(tenant_id)
        for release in releases:
            if held is not None and held.manifest.release == release:
                return
            if (tenant_id, release) in self._refused:
                continue
            try:
                predictor = self._load(tenant_id, release)
            except BrokenReleaseError as error:
                self._refused.add((tenant_id, release))
                log.error("release refused", tenant_id=tenant_id, release=release, reason=str(error))
                continue
            self._predictors = {**self._predictors, tenant_id: predictor}
            log.info("release loaded", tenant_id=tenant_id, release=release, families=predictor.info.families)
            return

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except Exception:  # the watch must outlive a store that cannot be read for a moment
                log.exception("release store not readable")
            self._stop.wait(self._poll_seconds)


def load_release(folder: Path, tenant_id: str, max_events: int) -> Predictor:
    """The predictor of a release folder. Raises BrokenReleaseError, also where the release is of another tenant."""
    predictor = Predictor.load(folder, max_events)
    if predictor.manifest.tenant_id != tenant_id:
        raise BrokenReleaseError(f"{folder} is a release of another tenant")
    return predictor
