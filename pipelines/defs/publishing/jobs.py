"""Publishes champions that a person chose, without a training."""

import dagster as dg

from pipelines.defs.publishing.assets import release
from pipelines.jobs import PUBLISH, STARTED_BY_SENSORS
from pipelines.presentation import SUMMARY
from pipelines.resources import Installation
from pipelines.runs import PROCESS_TAG, this_process


class PublicationConfig(dg.Config):
    """The tenant whose champions are published."""

    tenant: str


@dg.op(name="publish_chosen_champions")
def publish_chosen_champions(
    context: dg.OpExecutionContext, config: PublicationConfig, installation: dg.ResourceParam[Installation]
) -> None:
    """Publishes the tenant's champions as they are now."""
    from pipelines.defs.publishing.steps import publish_chosen  # loads BentoML and MLflow

    # From this tag the sensor sees that a killed run has ended, and starts another.
    context.instance.add_run_tags(context.run_id, {PROCESS_TAG: this_process()})
    published = publish_chosen(installation, config.tenant)
    for family, version in published.not_servable.items():
        context.log.warning(
            f"version {version} of {family} was trained on other item positions than today's, so no release can serve "
            "it: the next training fits its configuration again and publishes that"
        )
    if published.release is None:
        context.log.warning("no champion can be served, so nothing was published")
        return
    context.log_event(
        dg.AssetMaterialization(
            release.key,
            partition=config.tenant,
            metadata={
                SUMMARY: f"release {published.release} with the champions that were chosen",
                "release": published.release,
                "versions": ", ".join(f"{family} {ref.version}" for family, ref in published.champions.items()),
            },
        )
    )


@dg.job(name=PUBLISH, executor_def=dg.in_process_executor, tags=STARTED_BY_SENSORS)
def publish_job() -> None:
    """Publishes the champions of one tenant as they are now, because a person chose some of them."""
    publish_chosen_champions()
