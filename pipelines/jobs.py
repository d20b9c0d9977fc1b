"""The names of all jobs, the tag that bounds concurrent runs, and the jobs that run assets of many areas.

Names of jobs, assets, sensors and schedules and the tags of runs are stored in Dagster's history, so they must not
change.
"""

import dagster as dg

from pipelines.partitions import runs_of_tenants

RETRAIN = "retrain"
LAKE = "lake"
GENERATE = "generate"
ANALYTICS = "analytics"
MEASURE_DRIFT = "measure_drift"
SEARCH = "search"
PUBLISH = "publish"
LISTS = "lists"
EXPORT_FILES = "export_files"
BACKFILL = "backfill"

WORK_TAG = "recommendai/work"
"""The kind of work of a run, by which the instance bounds how many run at once: see `pipelines.instance`."""
TRAINING = "training"
GENERATION = "generation"
SEARCHING = "search"
EXPORTING = "exports"

STARTED_BY_SENSORS = {"dagster/max_retries": "0"}
"""The tag of jobs whose sensor starts a new run after one that was cut off, so that Dagster does not start another."""

LAST_IN_QUEUE = -(10**15)
"""The priority of a run that is not the next one of its tenant (`pipelines.defs.queue.order`)."""


def tags_of_work(kind: str) -> dict[str, str]:
    """The tags of a job: its kind of work, and a priority that puts its runs at the end of the queue.

    The sensor `queue_order` moves them later. With another priority, a new run could begin before runs that wait.
    """
    return {WORK_TAG: kind, "dagster/priority": str(LAST_IN_QUEUE)}


TUNING_GROUP = "tuning"
"""The asset group of the searches, which only the job `search` runs."""

retrain = dg.define_asset_job(
    RETRAIN,
    selection=dg.AssetSelection.all() - dg.AssetSelection.groups(TUNING_GROUP),
    config=runs_of_tenants(),
    executor_def=dg.in_process_executor,  # a process per step would load torch in every step
    tags=tags_of_work(TRAINING),
    description="Exports new data, checks it, trains every family and releases the champions.",
)

backfill = dg.define_asset_job(
    BACKFILL,
    selection=dg.AssetSelection.assets(
        *("lake_interactions", "lake_items", "feature_snapshot", "drift"),
        *("item_lists", "segment_members", "daily_activity", "daily_accuracy"),
    ),
    config=runs_of_tenants(),
    executor_def=dg.in_process_executor,
    tags=tags_of_work(TRAINING),
    description="Makes the lake of a tenant whole from a day on, and what is made of days anew. "
    "The tag recommendai/backfill_from holds the day.",
)
