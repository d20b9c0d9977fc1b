"""What exports do, without Dagster: write the file of a tenant's next job, and delete files whose time is over."""

from configs.storage import open_storage
from feature_store.export_jobs import ClaimedExport, ExportJobs, exporting, files_to_keep, tenants_to_export
from feature_store.lake import tenant_folder
from feature_store.table_files import FileTooLargeError, write_table
from pipelines.resources import Installation

MEGABYTE = 1_000_000


def export_next(installation: Installation, tenant_id: str) -> str:
    """Write the file of the tenant's oldest export that waits; what was done, or an empty text where none waits.

    Nothing is done while another process writes for the tenant. An exception leaves the job unfinished, and the next
    call writes its file anew.
    """
    with exporting(installation.database_url(), tenant_id) as jobs:
        if jobs is None:
            return ""
        # What a killed process left may hold a user who was erased since.
        open_storage(installation.paths.exports).under(_folder(installation, tenant_id)).remove_unfinished()
        while (job := jobs.next_job()) is not None:
            if outcome := _export(installation, tenant_id, jobs, job):
                return outcome
    return ""


def clear_exports(installation: Installation) -> int:
    """Delete the files of exports that are expired, withdrawn or gone, and of deleted tenants. Returns how many.

    What a killed process left is deleted too, unless the tenant's next export does that: an erasure may have taken the
    job away, and nobody would write for the tenant again.
    """
    storage, deleted = open_storage(installation.paths.exports), 0
    files = storage.files()  # before the jobs are read, so that no file of a newer job is among them
    waiting = {_folder(installation, tenant) for tenant in tenants_to_export(installation.database_url())}
    for folder in set(storage.folders()) - waiting:
        storage.remove_unfinished(folder)  # a job that comes at this moment is begun anew
    listed = files_to_keep(installation.database_url(), installation.retention.export_job_days)
    kept = {f"{_folder(installation, tenant)}/{name}" for tenant, name in listed}
    for key in files:
        if key not in kept:
            storage.delete(key)
            deleted += 1
    return deleted


def _export(installation: Installation, tenant_id: str, jobs: ExportJobs, job: ClaimedExport) -> str:
    """What was done; an empty text where a user was erased meanwhile."""
    settings = installation.exports
    key = f"{_folder(installation, tenant_id)}/{job.file_name}"
    storage = open_storage(installation.paths.exports)
    try:
        with storage.put(key) as file:
            rows = write_table(
                installation.database_url(),
                tenant_id,
                job.table,
                job.file_format,
                file,
                since=job.since,
                until=job.until,
                max_bytes=settings.max_mb * MEGABYTE,
            )
            size = file.stat().st_size
    except FileTooLargeError as error:
        jobs.fail(job, f"{error}: ask for a shorter period")
        return f"export {job.id}: {error}"
    if jobs.complete(job, rows, size, settings.hours):
        return f"export {job.id}: {rows:,} rows of {job.table}, {size:,} bytes"
    storage.delete(key)
    return ""


def _folder(installation: Installation, tenant_id: str) -> str:
    return tenant_folder(installation.paths.exports, tenant_id).name
