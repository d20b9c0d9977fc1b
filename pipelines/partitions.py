"""Tenants are the only dimension of a partition: days are folders of the lake."""

import dagster as dg

TENANTS = "tenants"
tenants = dg.DynamicPartitionsDefinition(name=TENANTS)

TENANT_TAG = "dagster/partition"
"""The tag by which Dagster marks a run with its partition, that is its tenant."""

GENERATION_TENANT_TAG = "recommendai/tenant"
"""The tag of a generation's run with its tenant. A partition would make it wait for the tenant's training to end."""
