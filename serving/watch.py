"""Keeps the newest valid release of every tenant loaded, and looks for newer ones in the background."""

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

    A newer release is loaded while the old one still serves. Then one reference is swapped, and the old release is
    freed when its last answer is done. A release that cannot be loaded is logged and not tried again; the next newest
    serves.
    """

    def __init__(
        self,
        find: Callable[[], Releases],
        load: Callable[[str, str], Predictor],
        poll_seconds: float,
    ) -> None:
        """find: ids of the complete releases by tenant, newest first. load: (tenant, release) -> predictor."""
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
        """Whether the store has been read once, even if it held no release."""
        return self._read

    @property
    def predictors(self) -> dict[str, Predictor]:
        """The loaded predictors by tenant. The mapping is replaced and never changed, so a reader needs no lock."""
        return self._predictors

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. A load in progress is finished first."""
        self._stop.set()
        self._thread.join()

    def refresh(self) -> None:
        """Read the store once and load newer releases."""
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
            except Exception:  # the store may be unreadable for a moment; the watch must go on
                log.exception("release store not readable")
            self._stop.wait(self._poll_seconds)


def load_release(folder: Path, tenant_id: str, max_events: int) -> Predictor:
    """The predictor of a release folder. Raises BrokenReleaseError, also for a release of another tenant."""
    predictor = Predictor.load(folder, max_events)
    if predictor.manifest.tenant_id != tenant_id:
        raise BrokenReleaseError(f"{folder} is a release of another tenant")
    return predictor
