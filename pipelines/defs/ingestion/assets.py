"""Exports from the product's database to the lake."""

from typing import Any

import dagster as dg

from feature_store import exports, statistics
from feature_store.backfill import Backfilled
from feature_store.lake import TenantLake
from feature_store.schemas import LAKE_INTERACTIONS, LAKE_ITEMS
from pipelines.backfill_day import backfill_day
from pipelines.defs.ingestion.steps import backfill, export
from pipelines.jobs import LAKE, TRAINING, tags_of_work
from pipelines.partitions import runs_of_tenants, tenants
from pipelines.presentation import COLUMNS, SUMMARY, table, table_schema
from pipelines.resources import Installation


@dg.asset(
    group_name="ingestion",
    partitions_def=tenants,
    kinds={"postgres", "parquet"},
    metadata={COLUMNS: table_schema(LAKE_INTERACTIONS)},
)
def lake_interactions(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[None]:
    """The tenant's interactions in Parquet files by day of ingestion, each once, without those of erased users."""
    lake = installation.paths.lake
    since = backfill_day(context.run)
    backfilled = None if since is None else backfill(installation, context.partition_key, since)
    exported = export(installation, context.partition_key)
    files = TenantLake(lake, context.partition_key).interaction_files()
    return dg.MaterializeResult(
        metadata={
            SUMMARY: ("" if backfilled is None else f"{_backfilled_words(backfilled)}; ")
            + f"{exported.new_rows:,} new interactions, {exported.total_rows:,} in the lake"
            + (f", {exported.erased_users:,} users erased" if exported.erased_users else "")
            + (f", {exported.removed_rows:,} rows removed after a restore" if exported.removed_rows else ""),
            "dagster/partition_row_count": exported.total_rows,
            "new_interactions": exported.new_rows,
            "erased_users": exported.erased_users,
            "removed_interactions": exported.removed_rows,
            "first_transaction": exported.lower_xid,
            "next_transaction": exported.upper_xid,
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "interactions_by_type": table(statistics.interactions_by_type(files)),
            **({} if backfilled is None else _backfilled_metadata(backfilled)),
            "folder": dg.MetadataValue.path(lake / f"tenant={context.partition_key}" / "interactions"),
        }
    )


@dg.asset(
    group_name="ingestion",
    partitions_def=tenants,
    kinds={"postgres", "parquet"},
    metadata={COLUMNS: table_schema(LAKE_ITEMS)},
)
def lake_items(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[None]:
    """The tenant's catalogue at its newest version, with the metadata of every item."""
    lake = installation.paths.lake
    exported = exports.export_items(installation.database_url(), lake, context.partition_key)
    _, file = TenantLake(lake, context.partition_key).items_file()
    return dg.MaterializeResult(
        metadata={
            SUMMARY: f"{exported.items:,} items at catalogue version {exported.catalogue_version}",
            "dagster/partition_row_count": exported.items,
            "catalogue_version": exported.catalogue_version,
            "bytes": file.stat().st_size,
            "preview": table(statistics.items_preview(file)),
            "file": dg.MetadataValue.path(file),
        }
    )


def _backfilled_words(found: Backfilled) -> str:
    what = [f"{found.rows:,} missing interactions of {len(found.added):,} days written"] if found.added else []
    if found.unreadable:
        what.append(f"{found.unreadable:,} unreadable files replaced")
    if found.still_missing:
        what.append(f"{found.still_missing:,} interactions of earlier days, or that the database lacks, still missing")
    return f"from {found.since} on: " + (", ".join(what) or f"none of {found.compared:,} interactions was missing")


def _backfilled_metadata(found: Backfilled) -> dict[str, Any]:
    days: list[dict[str, str | int]] = [
        {"day": day.isoformat(), "interactions": rows} for day, rows in sorted(found.added.items())
    ]
    return {
        "backfilled_from": found.since.isoformat(),
        "compared_interactions": found.compared,
        "backfilled_interactions": found.rows,
        "replaced_files": found.unreadable,
        "still_missing_interactions": found.still_missing,
        "backfilled_days": table(days),
    }


lake_job = dg.define_asset_job(
    LAKE,
    selection=dg.AssetSelection.assets(lake_interactions).without_checks(),  # an erasure waits for no check
    executor_def=dg.in_process_executor,
    config=runs_of_tenants(),
    tags=tags_of_work(TRAINING),
    description="Exports new interactions, and deletes erased users from every file.",
)
