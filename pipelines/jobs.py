"""What runs as one: everything, from the database to the release."""

import dagster as dg

RETRAIN = "retrain"

retrain = dg.define_asset_job(
    RETRAIN,
    selection=dg.AssetSelection.all(),
    executor_def=dg.in_process_executor,  # a process for every step would load torch in every step
    description="Exports what is new, checks it, trains every family, and releases the champions.",
)
