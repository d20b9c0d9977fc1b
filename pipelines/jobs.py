"""What runs as one: everything, from the database to the release."""

import dagster as dg

from pipelines.partitions import tenants

RETRAIN = "retrain"


def retrain_job() -> dg.UnresolvedAssetJobDefinition:
    """All assets of one tenant, in one process."""
    return dg.define_asset_job(
        RETRAIN,
        selection="*",
        partitions_def=tenants,
        # A process per step would load torch for each.
        executor_def=dg.in_process_executor,
        description="Exports what is new, checks it, trains every family, and releases the champions.",
    )
