"""Whether the run trains: the step between the snapshot and the families, which ends a run that brings nothing new."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg

from pipelines.defs.training.families import asset_name
from pipelines.defs.training.training_inputs import (
    FORCE_TAG,
    INPUTS_TAG,
    SKIPPED_TAG,
    last_inputs,
    training_inputs,
    what_is_new,
)
from pipelines.partitions import tenants
from pipelines.presentation import SUMMARY
from pipelines.resources import Installation
from training.models.registry import families

PLAN = "training_plan"
_TRAINED = {dg.AssetKey(name) for name in (*map(asset_name, families()), "evaluation", "champions", "release")}
"""What a run has to make before another one may go by it."""


@dg.asset(name=PLAN, group_name="training", partitions_def=tenants, output_required=False)
def training_plan(
    context: dg.AssetExecutionContext,
    installation: dg.ResourceParam[Installation],
    feature_snapshot: dict[str, Any],
) -> Iterator[dg.MaterializeResult[dict[str, Any]] | dg.AssetObservation]:
    """The snapshot that the next models are trained on, where anything is new since the last ones."""
    tenant, run = context.partition_key, context.run
    inputs = training_inputs(installation, tenant, feature_snapshot["snapshot_id"], feature_snapshot["exclude_seen"])
    whole_job = not run.asset_selection or run.asset_selection >= _TRAINED
    if whole_job:
        context.instance.add_run_tags(run.run_id, {INPUTS_TAG: json.dumps(inputs)})
    new = what_is_new(inputs, last_inputs(context.instance, tenant))
    forced = run.tags.get(FORCE_TAG) == "true"
    if whole_job and not new and not forced:  # single assets are trained because a person chose them
        reason = (
            f"nothing new since the last training: snapshot {feature_snapshot['snapshot_id']}, the settings and the "
            f"software are the same. To train anyway: `python -m pipelines run --tenant {tenant} --force`, or the tag "
            f"{FORCE_TAG}=true"
        )
        context.instance.add_run_tags(run.run_id, {SKIPPED_TAG: "nothing new since the last training"})
        context.log.info(reason)
        yield dg.AssetObservation(context.asset_key, partition=tenant, metadata={SUMMARY: f"skipped: {reason}"})
        return
    yield dg.MaterializeResult(
        value=feature_snapshot,
        metadata={
            SUMMARY: f"trains: new is {', '.join(new)}" if new else "trains, although nothing is new",
            "new": ", ".join(new) or "nothing",
            "snapshot_id": feature_snapshot["snapshot_id"],
            "interactions": feature_snapshot["n_interactions"],
            "users": feature_snapshot["n_users"],
            "items": feature_snapshot["n_items"],
        },
    )
