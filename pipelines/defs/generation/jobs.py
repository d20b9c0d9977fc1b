"""Recommendations for all users of a segment, as the API's `generate` asks for them."""

import dagster as dg

from feature_store.schemas import RECOMMENDATIONS
from pipelines.jobs import GENERATE, GENERATION, STARTED_BY_SENSORS, tags_of_work
from pipelines.partitions import tenants
from pipelines.presentation import COLUMNS, SUMMARY, table_schema
from pipelines.resources import Installation
from pipelines.runs import PROCESS_TAG, this_process

LOG_EVERY = 10_000
"""Users between two lines of a run's log."""

recommendation_records = dg.AssetSpec(
    "recommendation_records",
    deps=["release"],
    group_name="generation",
    partitions_def=tenants,
    kinds={"postgres", "parquet"},
    description="Recommendations in the database or in Parquet files, generated in bulk by the jobs of the API.",
    metadata={COLUMNS: table_schema(RECOMMENDATIONS)},
)


class GenerationConfig(dg.Config):
    """The tenant whose generation jobs are processed."""

    tenant: str


@dg.op(name="generate_recommendations")
def generate_recommendations(
    context: dg.OpExecutionContext, config: GenerationConfig, installation: dg.ResourceParam[Installation]
) -> None:
    """Scores all users of the waiting jobs with the newest release and stores the recommendations."""
    from pipelines.defs.generation.steps import process_jobs  # loads the models' libraries

    # From this tag the sensor sees that a killed run has ended, and starts another.
    context.instance.add_run_tags(context.run_id, {PROCESS_TAG: this_process()})
    logged = 0

    def log_progress(done: int, total: int) -> None:
        nonlocal logged
        if done - logged >= LOG_EVERY or done == total:
            logged = 0 if done == total else done
            context.log.info(f"{done:,} of {total:,} users")

    for result in process_jobs(installation, config.tenant, log_progress):
        if result.problem:
            context.log.error(f"job {result.job_id}: {result.problem}")
            continue
        context.log.info(
            f"job {result.job_id}: {result.recommendations:,} recommendations for {result.users:,} users in "
            f"{result.seconds:.1f} s, {result.users_per_second:,.0f} users a second"
        )
        if result.goes_on:
            context.log.info(f"job {result.job_id} goes on later: {result.users:,} users done, another tenant waits")
        context.log_event(
            dg.AssetMaterialization(
                recommendation_records.key,
                partition=config.tenant,
                metadata={
                    SUMMARY: f"{result.recommendations:,} recommendations for {result.users:,} users",
                    "job": result.job_id,
                    "algorithm": result.algorithm,
                    "release": result.release,
                    "users": result.users,
                    "recommendations": result.recommendations,
                    "seconds": result.seconds,
                    "users_per_second": result.users_per_second,
                    "target": installation.generation.target,
                },
            )
        )


@dg.job(name=GENERATE, executor_def=dg.in_process_executor, tags={**tags_of_work(GENERATION), **STARTED_BY_SENSORS})
def generate_job() -> None:
    """Processes the generation jobs of one tenant."""
    generate_recommendations()
