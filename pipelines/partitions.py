"""The tenant is the only partition dimension. Adding another later would separate new runs from the earlier history."""

import dagster as dg

TENANTS = "tenants"
tenants = dg.DynamicPartitionsDefinition(name=TENANTS)

TENANT_TAG = "dagster/partition"
"""The tag with which Dagster marks a run with its partition, which is its tenant."""

GENERATION_TENANT_TAG = "recommendai/tenant"
"""The tag with the tenant of a run of any job, which the list of runs shows and can be filtered by.

Runs of `generate`, `export_files` and `publish` have it alone: with a partition they would wait for the tenant's
training to end.
"""


def runs_of_tenants() -> dg.PartitionedConfig[dg.DynamicPartitionsDefinition]:
    """For jobs over the partitions: no configuration, and the tenant as a tag of each run."""
    return dg.PartitionedConfig(
        tenants,
        run_config_for_partition_key_fn=lambda tenant: {},
        tags_for_partition_key_fn=lambda tenant: {GENERATION_TENANT_TAG: tenant},
    )
