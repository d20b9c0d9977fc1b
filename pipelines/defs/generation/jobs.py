"""Recommendations for all users of a segment, as the API's `generate` asks for them."""

import dagster as dg

from pipelines.jobs import GENERATE, GENERATION, WORK_TAG
from pipelines.partitions import tenants
from pipelines.presentation import SUMMARY
from pipelines.resources import Installation
from pipelines.runs import PROCESS_TAG, this_process

LOG_EVERY = 10_000
"""Users between two lines of a run's log."""

recommendation_records = dg.AssetSpec(
    "recommendation_records",
    deps=["release"],
    group_name="generation",
    partitions_def=tenants,
    kinds={"postgres"},
    description="Recommendations in the database, generated in bulk where somebody asked for them.",
)


class Tenant(dg.Config):
    """Whose jobs to work off."""

    tenant: str


@dg.op(name="generate_recommendations")
def generate_recommendations(
    context: dg.OpExecutionContext, config: Tenant, installation: dg.ResourceParam[Installation]
) -> None:
    """Scores all users of the waiting jobs with the newest release, and stores what it recommends."""
    from pipelines.defs.generation.steps import work_off  # loads the models' libraries

    # Should this process be killed, the sensor sees from the tag that the run has ended, and starts another.
    context.instance.add_run_tags(context.run_id, {PROCESS_TAG: this_process()})
    logged = 0

    def progress(done: int, total: int) -> None:
        nonlocal logged
        if done - logged >= LOG_EVERY or done == total:
            logged = 0 if done == total else done
            context.log.info(f"{done:,} of {total:,} users")

    for generated in work_off(installation, config.tenant, progress):
        if generated.problem:
            context.log.error(f"job {generated.job_id}: {generated.problem}")
            continue
        context.log_event(
            dg.AssetMaterialization(
                recommendation_records.key,
                partition=config.tenant,
                metadata={
                    SUMMARY: f"{generated.recommendations:,} recommendations for {generated.users:,} users",
                    "job": generated.job_id,
                    "algorithm": generated.algorithm,
                    "release": generated.release,
                    "users": generated.users,
                    "recommendations": generated.recommendations,
                },
            )
        )


@dg.job(name=GENERATE, executor_def=dg.in_process_executor, tags={WORK_TAG: GENERATION})
def generate() -> None:
    """Works off the generation jobs of one tenant."""
    generate_recommendations()
