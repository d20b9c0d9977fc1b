"""What must hold of the lake before features are built. A failed check blocks the assets that come after the lake."""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from feature_store import quality
from feature_store.lake import TenantLake
from pipelines.defs.ingestion.assets import lake_interactions, lake_items
from pipelines.partitions import tenants
from pipelines.resources import Installation

_ASSETS = {"interactions": lake_interactions, "items": lake_items}


def _specs() -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # Partitioned checks are in preview. Without partitions one tenant's result would overwrite another's.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(name, asset=_ASSETS[subject], description=text, blocking=True, partitions_def=tenants)
            for (subject, name), text in quality.CHECKS.items()
        ]


@dg.multi_asset_check(name="lake_quality", specs=_specs())
def lake_quality(
    context: dg.AssetCheckExecutionContext, installation: dg.ResourceParam[Installation]
) -> Iterator[dg.AssetCheckResult]:
    """The tenant's lake is complete and valid."""
    lake = TenantLake(installation.paths.lake, context.partition_key)
    findings = quality.check_lake(lake, installation.pipeline.first_model_after, datetime.now(UTC))
    for (subject, name), finding in findings.items():
        yield dg.AssetCheckResult(
            asset_key=_ASSETS[subject].key,
            check_name=name,
            passed=finding.passed,
            description=finding.description,
            metadata=finding.counts,
        )
