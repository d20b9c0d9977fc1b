"""The figures that the API shows a tenant."""

from datetime import UTC, datetime

import dagster as dg

from feature_store import analytics_sources
from pipelines.defs.analytics.counting import roll_up
from pipelines.jobs import ANALYTICS, TRAINING, WORK_TAG
from pipelines.partitions import tenants
from pipelines.presentation import SUMMARY, table
from pipelines.resources import Installation


@dg.asset(group_name="analytics", partitions_def=tenants, kinds={"postgres"})
def daily_activity(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[None]:
    """Totals and days of the tenant, counted up to this moment, and which interactions followed from which answer."""
    counted = roll_up(installation, context.partition_key)
    followed = analytics_sources.online_metrics(installation.database_url(), context.partition_key)
    return dg.MaterializeResult(
        metadata={
            SUMMARY: f"{counted.interactions:,} interactions, {counted.shown:,} items shown and {counted.users:,} "
            f"users newly counted; {counted.attributed:,} interactions followed from an answer",
            "interactions": counted.interactions,
            "items_shown": counted.shown,
            "users": counted.users,
            "attributed": counted.attributed,
            "answers_followed": table(followed.to_pylist()),
        }
    )


@dg.asset(group_name="analytics", partitions_def=tenants, kinds={"postgres"}, deps=[daily_activity, "release"])
def daily_accuracy(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[None]:
    """How well the models of each release ranked what users chose on the days that it served."""
    from pipelines.defs.analytics.measuring import measure  # loads the models' libraries

    outcome = measure(installation, context.partition_key, datetime.now(UTC))
    for release, reason in outcome.broken.items():
        context.log.error(f"release {release} cannot be measured: {reason}")
    measured = outcome.measured
    return dg.MaterializeResult(
        metadata={
            SUMMARY: f"{len(measured)} days measured" if measured else "no interactions under a release to measure",
            "broken_releases": ", ".join(outcome.broken) or "none",
            "measured": table(
                [
                    {
                        "day": each.day.isoformat(),
                        "release": each.release,
                        "family": model.family,
                        "auc": model.auc,
                        "users": model.users,
                    }
                    for each in measured
                    for model in each.models
                ]
            ),
        }
    )


analytics = dg.define_asset_job(
    ANALYTICS,
    selection=dg.AssetSelection.assets(daily_activity, daily_accuracy),
    executor_def=dg.in_process_executor,
    tags={WORK_TAG: TRAINING},  # it scores with models, so it takes its turn with what trains them
    description="Counts what is new, and measures the releases that served.",
)
