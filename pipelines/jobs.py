"""The jobs by name, and the one that does everything, from the database to the release."""

import dagster as dg

RETRAIN = "retrain"
LAKE = "lake"
GENERATE = "generate"
ANALYTICS = "analytics"

WORK_TAG = "recommendai/work"
"""What a run does, by which the instance bounds how many run at once: see `pipelines.instance`."""
TRAINING = "training"
GENERATION = "generation"

retrain = dg.define_asset_job(
    RETRAIN,
    selection=dg.AssetSelection.all(),
    executor_def=dg.in_process_executor,  # a process for every step would load torch in every step
    tags={WORK_TAG: TRAINING},
    description="Exports what is new, checks it, trains every family, and releases the champions.",
)

lake = dg.define_asset_job(
    LAKE,
    selection=dg.AssetSelection.assets("lake_interactions").without_checks(),  # an erasure waits for no check
    executor_def=dg.in_process_executor,
    tags={WORK_TAG: TRAINING},
    description="Exports what is new, and takes erased users out of every file.",
)
