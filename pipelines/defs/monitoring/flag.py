"""The flag that stops publishing: set by a day with drift, lifted by the next day without it or by a person.

It lies among the values of assets, `drift/<tenant>.json`, and is deleted with the tenant.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime

from configs.storage import Storage, open_storage
from pipelines.io_managers import values_folder
from pipelines.resources import Installation

DRIFT = "drift"
"""The name of the asset."""
OF_RELEASE = frozenset({"accuracy", "followed"})
"""Measures of the release that serves. They stop no publishing, since a new release is what helps."""


@dataclass(frozen=True)
class DriftState:
    """What the asset `drift` last found of a tenant, and what follows from it."""

    until: str | None = None  # YYYY-MM-DD, the last day that was complete when drift was measured
    day: str | None = None  # the newest day that was judged; earlier where the tenant's data have ended
    drifted: tuple[str, ...] = ()  # names of measures
    stops_publishing: bool = False
    lifted_by: str | None = None  # who lifted the flag of this day
    lifted_because: str | None = None

    def after(self, until: date, day: date, drifted: list[str], action: str) -> "DriftState":
        """The state after this day was judged. A flag that a person lifted stays so until another day drifts.

        until: the last day that is complete in the lake.
        """
        same = day.isoformat() == self.day
        lifted = same and self.lifted_by is not None
        return DriftState(
            until=until.isoformat(),
            day=day.isoformat(),
            drifted=tuple(drifted),
            stops_publishing=action == "stop_publishing" and bool(set(drifted) - OF_RELEASE) and not lifted,
            lifted_by=self.lifted_by if same else None,
            lifted_because=self.lifted_because if same else None,
        )

    def newly(self, drifted: list[str]) -> list[str]:
        """Those of the measures that had not drifted before: what an alert tells of, once."""
        return [name for name in drifted if name not in self.drifted]


def read_drift(installation: Installation, tenant_id: str) -> DriftState:
    """What was last found of the tenant; the state without drift where nothing was measured yet."""
    values, key = _values(installation), _key(tenant_id)
    if not values.exists(key):
        return DriftState()
    found = json.loads(values.read_text(key))
    return DriftState(**{**found, "drifted": tuple(found["drifted"])})


class PublishingStoppedError(Exception):
    """Drift stops the publishing of a tenant."""


def refuse_while_stopped(installation: Installation, tenant_id: str) -> None:
    """Raises PublishingStoppedError, which says how to go on, while drift stops the publishing of the tenant."""
    state = read_drift(installation, tenant_id)
    if state.stops_publishing:
        raise PublishingStoppedError(
            f"drift of {', '.join(state.drifted)} on {state.day} stops publishing, as the tenant's settings want "
            "(drift.action); the earlier release serves on. The next measured day without drift lifts it, and so does "
            f'`python -m pipelines lift-drift --tenant {tenant_id} --reason "..."`; run the pipeline again then'
        )


def write_drift(installation: Installation, tenant_id: str, state: DriftState) -> None:
    """Keep what was found of the tenant, in place of what was found before."""
    _values(installation).put_text(_key(tenant_id), json.dumps(asdict(state), indent=1))


def lift_flag(installation: Installation, tenant_id: str, by: str, reason: str) -> DriftState:
    """Let the tenant's releases be published again in spite of the drift that was found. Returns the state before.

    Raises LookupError where no flag is set.
    """
    before = read_drift(installation, tenant_id)
    if not before.stops_publishing:
        raise LookupError(f"drift does not stop the publishing of tenant {tenant_id}")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    write_drift(
        installation,
        tenant_id,
        replace(before, stops_publishing=False, lifted_by=by, lifted_because=f"{reason} ({at})"),
    )
    return before


def _values(installation: Installation) -> Storage:
    return open_storage(values_folder(installation.paths))


def _key(tenant_id: str) -> str:
    return f"{DRIFT}/{tenant_id}.json"
