"""The analytics that the API shows a tenant."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from feature_store import analytics_sources
from pipelines.backfill_day import backfill_day
from pipelines.defs.analytics.activity import roll_up
from pipelines.jobs import ANALYTICS, TRAINING, tags_of_work
from pipelines.partitions import runs_of_tenants, tenants
from pipelines.presentation import SUMMARY, table
from pipelines.resources import Installation

if TYPE_CHECKING:
    from pipelines.defs.analytics.online_accuracy import MeasuredDay


@dg.asset(group_name="analytics", partitions_def=tenants, kinds={"postgres"})
def daily_activity(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[None]:
    """Totals and daily counts of the tenant up to now, and the interactions attributed to impressions."""
    new = roll_up(installation, context.partition_key)
    metrics = analytics_sources.online_metrics(installation.database_url(), context.partition_key)
    return dg.MaterializeResult(
        metadata={
            SUMMARY: f"{new.interactions:,} new interactions, {new.attributed:,} of them attributed to an impression; "
            f"{new.shown:,} more items shown, {new.users:,} new users",
            "new_interactions": new.interactions,
            "new_attributed_interactions": new.attributed,
            "new_items_shown": new.shown,
            "new_users": new.users,
            "online_metrics": table(metrics.to_pylist()),
        }
    )


@dg.asset(group_name="analytics", partitions_def=tenants, kinds={"postgres"}, deps=[daily_activity, "release"])
def daily_accuracy(
    context: dg.AssetExecutionContext, installation: dg.ResourceParam[Installation]
) -> dg.MaterializeResult[None]:
    """How well the models of each release ranked what users chose on the days that the release served."""
    from pipelines.defs.analytics.online_accuracy import measure_releases  # loads the models' libraries

    since = backfill_day(context.run)
    result = measure_releases(installation, context.partition_key, datetime.now(UTC), since)
    for release, reason in result.broken.items():
        context.log.error(f"release {release} cannot be read, so its accuracy is not measured: {reason}")
    days = len(result.accuracies)
    return dg.MaterializeResult(
        metadata={
            SUMMARY: f"accuracy of {days} days measured" if days else "no interactions under a release to measure",
            "measured_days": days,
            **_newest_auc(result.accuracies),
            "broken_releases": ", ".join(result.broken) or "none",
            "accuracy": table(
                [
                    {
                        "day": each.day.isoformat(),
                        "release": each.release,
                        "family": model.family,
                        "auc": model.auc,
                        "users": model.users,
                    }
                    for each in result.accuracies
                    for model in each.models
                ]
            ),
        }
    )


def _newest_auc(accuracies: "Sequence[MeasuredDay]") -> dict[str, float]:
    """The AUC of each family on the newest day that was measured; Dagster plots it over time."""
    newest = max(accuracies, key=lambda each: (each.day, each.release), default=None)
    return {} if newest is None else {f"auc_{model.family.replace('-', '_')}": model.auc for model in newest.models}


analytics_job = dg.define_asset_job(
    ANALYTICS,
    selection=dg.AssetSelection.assets(daily_activity, daily_accuracy),
    executor_def=dg.in_process_executor,
    config=runs_of_tenants(),
    tags=tags_of_work(TRAINING),  # it scores with models, so it takes its turn among the training runs
    description="Counts new activity and measures the accuracy of the releases that served.",
)
