"""Feature snapshots, which models train on, from the lake."""

from dataclasses import asdict
from typing import Any

import dagster as dg

from feature_store import snapshots, sources, statistics
from feature_store.lake import TenantLake
from feature_store.range_plan import RangeLimits
from feature_store.schemas import SNAPSHOT_INTERACTIONS, SNAPSHOT_ITEMS
from feature_store.snapshot_files import snapshot_folder
from pipelines.defs.ingestion.assets import lake_interactions, lake_items
from pipelines.partitions import tenants
from pipelines.presentation import COLUMNS, SUMMARY, line_plot, rank_plot, table, table_schema
from pipelines.resources import Installation

KEPT_SNAPSHOTS = 10
"""Snapshots of a tenant that stay on disk, for training again or for comparisons."""


@dg.asset(
    group_name="features",
    partitions_def=tenants,
    kinds={"duckdb", "parquet"},
    deps=[lake_interactions, lake_items],
    metadata={
        COLUMNS: table_schema(SNAPSHOT_INTERACTIONS),
        "columns_of_items": dg.MetadataValue.table_schema(table_schema(SNAPSHOT_ITEMS)),
    },
)
def feature_snapshot(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[dict[str, Any]]:
    """The tenant's interactions and items as positions, deduplicated, under an id that is a hash of the content."""
    features = installation.paths.features
    exclude_seen = sources.exclude_seen(installation.database_url(), context.partition_key)
    cursor = TenantLake(installation.paths.lake, context.partition_key).cursor()
    limits = RangeLimits(installation.features.range_events, installation.features.task_memory_mb << 20)
    compute = installation.compute()
    manifest = snapshots.build_snapshot(installation.paths.lake, features, context.partition_key, limits, compute.map)
    snapshots.prune_snapshots(features, context.partition_key, KEPT_SNAPSHOTS)
    folder = snapshot_folder(features, context.partition_key, manifest.snapshot_id)
    days, counts = statistics.interactions_per_day(folder)
    return dg.MaterializeResult(
        # The policy on seen items travels with the snapshot, so that every family's metrics mask the same items.
        # The lake's cursor says which interactions the snapshot holds, also after later exports.
        value={**asdict(manifest), "exclude_seen": exclude_seen, "lake_cursor": asdict(cursor)},
        data_version=dg.DataVersion(manifest.snapshot_id),
        metadata={
            SUMMARY: f"{manifest.n_interactions:,} interactions of {manifest.n_users:,} users "
            f"with {manifest.n_items:,} items",
            "dagster/partition_row_count": manifest.n_interactions,
            "snapshot_id": manifest.snapshot_id,
            "users": manifest.n_users,
            "items": manifest.n_items,
            "interactions": manifest.n_interactions,
            "interactions_per_user": manifest.n_interactions / max(1, manifest.n_users),
            "catalogue_version": manifest.catalogue_version,
            "first_interaction": manifest.first_timestamp or "none",
            "last_interaction": manifest.last_timestamp or "none",
            "most_popular_items": table(statistics.most_popular_items(folder)),
            "interactions_per_day": line_plot(days, counts, xlabel="day (UTC)", ylabel="interactions"),
            "item_popularity": rank_plot(
                statistics.item_popularity(folder), xlabel="items by popularity", ylabel="interactions"
            ),
            "folder": dg.MetadataValue.path(folder),
        },
    )
