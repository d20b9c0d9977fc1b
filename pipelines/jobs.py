"""The jobs by name, and the one that does everything, from the database to the release."""

import dagster as dg

RETRAIN = "retrain"
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
