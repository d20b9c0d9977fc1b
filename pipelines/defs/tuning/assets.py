"""One asset per model family: the search for its hyper-parameters, which its trainings then use.

Only the job `search` runs them. The steps are imported where they run: they load MLflow and the models' libraries.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np

from pipelines.defs.training.families import base_models_of, configuration_key, searchable_families
from pipelines.defs.training.presentation import run_link
from pipelines.defs.tuning.records import search_record
from pipelines.jobs import SEARCH, SEARCHING, STARTED_BY_SENSORS, TUNING_GROUP, tags_of_work
from pipelines.partitions import runs_of_tenants, tenants
from pipelines.presentation import SUMMARY, line_plot
from pipelines.resources import Installation
from pipelines.runs import waiting_work
from pipelines.tenant_settings import tenant_settings

MINUTES_TAG = "recommendai/search_minutes"
"""The minutes that the sensor gave a search. One that a person starts has the tenant's minutes."""


def configuration_assets() -> list[dg.AssetsDefinition]:
    """The searches of all families that have a search space."""
    return [_configuration_asset(family) for family in searchable_families()]


search_job = dg.define_asset_job(
    SEARCH,
    selection=dg.AssetSelection.groups(TUNING_GROUP),
    executor_def=dg.in_process_executor,
    config=runs_of_tenants(),
    tags={**tags_of_work(SEARCHING), **STARTED_BY_SENSORS},
    description="Searches for better hyper-parameters of a family, while no training waits or runs.",
)


def _configuration_asset(family: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=configuration_key(family),
        description=f"What trainings of {family} use as hyper-parameters, searched on the validation window.",
        group_name=TUNING_GROUP,
        partitions_def=tenants,
        kinds={"mlflow"},
        ins={"feature_snapshot": dg.AssetIn()},
        deps=[configuration_key(other) for other in base_models_of(family)],
        output_required=False,
    )
    def configuration(
        context: dg.AssetExecutionContext,
        installation: dg.ResourceParam[Installation],
        feature_snapshot: dict[str, Any],
    ) -> Iterator[dg.MaterializeResult[dict[str, Any]]]:
        from pipelines.defs.training.steps import TrainingRun
        from pipelines.defs.tuning.steps import StopOnce, search_configuration

        stop = StopOnce(lambda: waiting_work(context.instance))
        if stop():
            context.log.warning(f"nothing was searched: {stop.reason}")
            return
        tenant = context.partition_key
        given = context.run.tags.get(MINUTES_TAG)
        run = TrainingRun.on(installation, feature_snapshot)
        found = search_configuration(
            run,
            family,
            minutes=tenant_settings(installation, tenant).search.minutes if given is None else float(given),
            earlier=search_record(installation.paths, tenant, family),
            stop=stop,
            tags={"dagster_run": context.run.run_id},
        )
        result = found.result
        figures = {} if result is None else {"ndcg_at_10": result.value, "ndcg_at_10_of_base": result.baseline}
        improvement = None if result is None else result.improvement
        if improvement is not None:
            figures |= {"improvement": improvement.mean, "improvement_low": improvement.low}
        best = [trial.value for trial in found.trials if trial.value is not None and trial.share == 1]
        yield dg.MaterializeResult(
            value=found.record.value(),
            metadata={
                SUMMARY: found.summary,
                "adopted": found.record.adopted,
                **{name: value for name, value in figures.items() if value is not None},
                "trials": len(found.trials),
                "minutes": round(found.minutes, 2),
                "began_with": found.base_source,
                "values": line_plot(range(len(best)), np.array(best), xlabel="trial", ylabel="ndcg@10"),
                **({} if result is None else {"best": dg.MetadataValue.json(result.config.model_dump(mode="json"))}),
                "mlflow_run": run_link(run.tracking, found.record.run_id or ""),
            },
        )

    return configuration
