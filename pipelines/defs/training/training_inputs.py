"""Whether a training would bring anything new: what it depends on, against the last run that trained.

A run carries what it depends on as a tag. A run that trains nothing carries the same tag as the one that trained, so
the newest run that ended well says what the models were made of.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files

import dagster as dg

from pipelines.defs.training.families import searchable_families
from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANT_TAG
from pipelines.resources import Installation
from pipelines.tenant_settings import tenant_settings
from training.evaluation.code_version import code_version
from training.models.registry import families, family_module

INPUTS_TAG = "recommendai/training-inputs"
"""JSON of `training_inputs`. Only runs of the whole job have it."""
FORCE_TAG = "recommendai/force"
"""`true` on a run that trains whether or not there is anything new."""
SKIPPED_TAG = "recommendai/skipped"
"""Why a run trained nothing, in the list of runs."""
_LOOKED_BACK = 20
"""Runs of the whole job among which the newest with the tag is found. Runs of single assets lie between them."""


def training_inputs(installation: Installation, tenant_id: str, snapshot_id: str, exclude_seen: str) -> dict[str, str]:
    """What the models of a run depend on, by a name that a person understands.

    Args:
        snapshot_id: a hash of the interactions and the items.
        exclude_seen: the tenant's policy on seen items.
    """
    settings = tenant_settings(installation, tenant_id).model_dump(
        mode="json", include={"training": {"seconds"}, "promotion": True}
    )
    of_installation = [installation.pipeline.train_seconds, installation.pipeline.train_device]
    return {
        "interactions or items": snapshot_id,
        "settings": _digest([settings, of_installation, exclude_seen]),
        "hyper-parameters": _digest([_default_values(), _adopted_searches(installation, tenant_id)]),
        "software": _digest([(name, code_version("training.train", family_module(name))) for name in families()]),
    }


def last_inputs(instance: dg.DagsterInstance, tenant_id: str) -> dict[str, str] | None:
    """What the models of the newest run that ended well depend on; None where there was no such run."""
    filters = dg.RunsFilter(job_name=RETRAIN, statuses=[dg.DagsterRunStatus.SUCCESS], tags={TENANT_TAG: tenant_id})
    tagged = (run.tags[INPUTS_TAG] for run in instance.get_runs(filters, limit=_LOOKED_BACK) if INPUTS_TAG in run.tags)
    found = next(tagged, None)
    return None if found is None else dict(json.loads(found))


def what_is_new(now: Mapping[str, str], before: Mapping[str, str] | None) -> list[str]:
    """The names of what has changed; empty where training again would make the same models."""
    if before is None:
        return ["first training"]
    return [name for name, value in now.items() if before.get(name) != value]


def _default_values() -> list[str]:
    """The files that hold hyper-parameters and the promotion policy."""
    configs = files("configs")
    found = sorted((file for file in (configs / "models").iterdir() if file.is_file()), key=lambda file: file.name)
    return [file.read_text() for file in (*found, configs / "promotion.yaml")]


def _adopted_searches(installation: Installation, tenant_id: str) -> dict[str, str]:
    """By family, the run of the search whose configuration its trainings use."""
    from pipelines.defs.training.steps import tracking_of  # loads MLflow, which sensors do without
    from training.tracking.searches import adopted_search

    tracking = tracking_of(installation)
    found = {family: adopted_search(tracking, tenant_id, family) for family in searchable_families()}
    return {family: search.run_id for family, search in found.items() if search is not None}


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
