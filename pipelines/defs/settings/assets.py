"""The settings that a tenant's pipeline runs with."""

from typing import Any

import dagster as dg

from pipelines.defs.settings.presentation import setting_rows
from pipelines.partitions import tenants
from pipelines.presentation import SUMMARY, table
from pipelines.resources import Installation
from pipelines.tenant_settings import tenant_settings


@dg.asset(group_name="settings", partitions_def=tenants, kinds={"postgres"})
def pipeline_settings(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[dict[str, Any]]:
    """What the tenant's administrators have set at `/api/settings/pipeline`, and the defaults of everything else."""
    settings = tenant_settings(installation, context.partition_key)
    rows = setting_rows(settings, installation.pipeline)
    own = [row for row in rows if row["from"] == "tenant"]
    return dg.MaterializeResult(
        value={str(row["setting"]): row["value"] for row in rows},
        metadata={
            SUMMARY: f"{len(own)} of {len(rows)} settings are the tenant's own" if own else "all settings are defaults",
            "settings": table(rows),
        },
    )
