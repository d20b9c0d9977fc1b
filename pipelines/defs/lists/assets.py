"""Lists of items and the members of segments, which the API reads from the database."""

import dagster as dg

from pipelines.defs.ingestion.assets import lake_interactions, lake_items
from pipelines.jobs import LISTS, TRAINING, tags_of_work
from pipelines.partitions import runs_of_tenants, tenants
from pipelines.presentation import SUMMARY, table
from pipelines.resources import Installation


@dg.asset(
    group_name="lists", partitions_def=tenants, kinds={"duckdb", "postgres"}, deps=[lake_interactions, lake_items]
)
def item_lists(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[None]:
    """What rises in the tenant's newest week against the four before it, and what is bought together."""
    from pipelines.defs.lists.steps import make_lists  # loads the models' libraries

    sizes = make_lists(installation, context.partition_key)
    return dg.MaterializeResult(
        metadata={
            SUMMARY: f"{sizes.trending:,} items rise, {sizes.items_with_neighbours:,} items are bought with others",
            "trending_items": sizes.trending,
            "items_bought_together": sizes.items_with_neighbours,
            "type_of_baskets": sizes.basket_type,
            "first_trending": table([{"item": item, "score": score} for item, score in sizes.rises]),
        }
    )


@dg.asset(
    group_name="lists", partitions_def=tenants, kinds={"duckdb", "postgres"}, deps=[lake_interactions, lake_items]
)
def segment_members(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[None]:
    """The users and items of every segment of the tenant, with the size of each, which Dagster plots over time."""
    from pipelines.defs.lists.steps import measure_segments  # loads the models' libraries

    measured = measure_segments(installation, context.partition_key)
    return dg.MaterializeResult(
        metadata={
            SUMMARY: ", ".join(f"{each.rule.name}: {each.size:,}" for each in measured) or "no segments",
            "segments": len(measured),
            "sizes": table(
                [
                    {
                        "id": each.rule.id,
                        "name": each.rule.name,
                        "kind": each.rule.kind,
                        "size": each.size,
                        "stored": each.stored,
                    }
                    for each in measured
                ]
            ),
            **{f"size_{each.rule.id}": each.size for each in measured},
        }
    )


lists_job = dg.define_asset_job(
    LISTS,
    selection=dg.AssetSelection.assets(lake_interactions, lake_items, item_lists, segment_members).without_checks(),
    executor_def=dg.in_process_executor,
    config=runs_of_tenants(),
    tags=tags_of_work(TRAINING),
    description="Exports new interactions, and makes the lists and the members of segments anew.",
)
