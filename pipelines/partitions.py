"""The tenant is the only partition dimension. Adding another later would separate new runs from the earlier history."""

import dagster as dg

TENANTS = "tenants"
tenants = dg.DynamicPartitionsDefinition(name=TENANTS)

TENANT_TAG = "dagster/partition"
"""The tag with which Dagster marks a run with its partition, which is its tenant."""

GENERATION_TENANT_TAG = "recommendai/tenant"
"""The tag with the tenant of a run of `generate` or `publish`. With a partition it would wait for the tenant's training
to end."""
