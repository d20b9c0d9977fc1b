"""Files of a tenant's rows, as the API's `POST /api/exports` asks for them."""

import dagster as dg

from pipelines.defs.exports.steps import export_next
from pipelines.jobs import EXPORT_FILES, EXPORTING, STARTED_BY_SENSORS, tags_of_work
from pipelines.resources import Installation
from pipelines.runs import PROCESS_TAG, this_process


class ExportConfig(dg.Config):
    """The tenant whose export is written."""

    tenant: str


@dg.op(name="write_export")
def write_export(
    context: dg.OpExecutionContext, config: ExportConfig, installation: dg.ResourceParam[Installation]
) -> None:
    """Writes the file of the tenant's oldest export that waits."""
    # From this tag the sensor sees that a killed run has ended, and starts another.
    context.instance.add_run_tags(context.run_id, {PROCESS_TAG: this_process()})
    outcome = export_next(installation, config.tenant)
    context.log.info(outcome or "no export is waiting")


@dg.job(name=EXPORT_FILES, executor_def=dg.in_process_executor, tags={**tags_of_work(EXPORTING), **STARTED_BY_SENSORS})
def export_files_job() -> None:
    """Writes one file of one tenant, so that tenants take turns."""
    write_export()
