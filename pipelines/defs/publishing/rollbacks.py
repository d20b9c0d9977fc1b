"""What the commands `rollback` and `lift` do: go back to the previous champions, and end holds."""

import json
from dataclasses import dataclass

from configs.storage import open_storage
from pipelines.defs.publishing.moved_aliases import tell_of_choices
from pipelines.defs.training.families import released_families
from pipelines.defs.training.steps import POSITIONS_TAG, tracking_of
from pipelines.io_managers import value_key, values_folder
from pipelines.resources import Installation
from training.models.registry import families
from training.tracking.aliases import PREVIOUS, Hold
from training.tracking.mlflow_store import Tracking
from training.tracking.promotions import NoPreviousVersionError
from training.tracking.versions import ModelRef, registered_name


@dataclass(frozen=True)
class GoneBack:
    """One family that went back."""

    family: str
    version: str
    words: str  # for the person who rolled back


def roll_back(installation: Installation, tenant: str, family: str | None, by: str, reason: str) -> list[GoneBack]:
    """Make the previous versions champions and hold them. family: None takes every released family that has one.

    A version that was trained on other item positions than today's cannot be served. The champion then stays until a
    training has fitted the previous version's configuration again.

    Raises NoPreviousVersionError where no family can go back.
    """
    tracking = tracking_of(installation)
    wanted = released_families() if family is None else (family,)
    previous = {name: _previous(tracking, tenant, name) for name in wanted}
    found = {name: ref for name, ref in previous.items() if ref is not None}
    if not found:
        of = f"tenant {tenant}" if family is None else f"the family {family} of tenant {tenant}"
        raise NoPreviousVersionError(f"{of} has no version with the alias `previous` to go back to")
    positions = _positions_today(installation, tenant)
    gone_back = []
    for name, ref in found.items():
        trained_on = tracking.client.get_run(ref.run_id).data.tags.get(POSITIONS_TAG)
        if positions is not None and trained_on != positions:
            tracking.hold(ref.name, by, reason, refit_of=ref.version)
            words = (
                f"version {ref.version} of {name} was trained on other item positions than today's and cannot be "
                "served; a training that starts now fits its configuration again, and serves that"
            )
        else:
            tracking.roll_back(tenant, name, by=by, reason=reason)
            words = f"version {ref.version} of {name} is the champion again, and is published within a minute"
        gone_back.append(GoneBack(name, ref.version, words))
    tell_of_choices(installation, tenant, {each.family: each.words for each in gone_back}, by, reason)
    return gone_back


def end_holds(installation: Installation, tenant: str, family: str | None) -> dict[str, Hold]:
    """End the holds of a tenant's families, or of one; returns those that were there, by family."""
    tracking = tracking_of(installation)
    wanted = families() if family is None else (family,)
    lifted = {name: tracking.end_hold(registered_name(tenant, name)) for name in wanted}
    return {name: hold for name, hold in lifted.items() if hold is not None}


def _previous(tracking: Tracking, tenant: str, family: str) -> ModelRef | None:
    found = tracking.model_aliases(registered_name(tenant, family))
    if found is None or PREVIOUS not in found.aliases:
        return None
    return tracking.version(tenant, family, found.aliases[PREVIOUS])


def _positions_today(installation: Installation, tenant: str) -> str | None:
    """The id of the order of items in the newest snapshot; None where there is none on this machine."""
    values, key = open_storage(values_folder(installation.paths)), value_key(["feature_snapshot"], tenant)
    if not values.exists(key):
        return None
    positions: str = json.loads(values.read_text(key))["positions_id"]
    return positions
