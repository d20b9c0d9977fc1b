"""What the sensors `old_interactions` and `old_recommendation_files` do, without Dagster."""

import json
import time

from feature_store import sources
from feature_store.generation_files import delete_generated, jobs_with_files
from feature_store.generation_sources import jobs_to_keep
from feature_store.interaction_archive import archive_interactions
from feature_store.lake import TenantLake
from pipelines.resources import Installation


def archive_old_interactions(
    installation: Installation, cursor: str | None = None, seconds: float = 20.0
) -> tuple[int, str | None]:
    """Move the old interactions of all tenants to the archive, tenant by tenant and user by user, as far as the lake
    has them.

    Args:
        installation: whose database, lake and settings. Without `RETENTION_INTERACTION_DAYS` nothing is done.
        cursor: where the last call stopped; None: from the beginning.
        seconds: after which it stops at the next part.

    Returns how many were moved, and the cursor of the next call; None where all tenants were walked through.
    Raises IncompleteLakeError where files of a lake are gone.
    """
    deadline, moved, days = time.monotonic() + seconds, 0, installation.retention.interaction_days
    if days is None:
        return 0, None
    url = installation.database_url()
    at, after = json.loads(cursor) if cursor is not None else ("", "")
    for tenant in sources.tenants(url):
        if tenant < at:
            continue
        if time.monotonic() > deadline:
            return moved, json.dumps([tenant, ""])
        lake = TenantLake(installation.paths.lake, tenant)
        part = archive_interactions(url, lake, days, after if tenant == at else "", deadline)
        moved += part.moved
        if part.next_user is not None:
            return moved, json.dumps([tenant, part.next_user])
    return moved, None


def delete_old_recommendations(installation: Installation) -> int:
    """Delete the files of generation jobs that no setting keeps and that nobody writes. Returns of how many jobs."""
    root = installation.paths.recommendations
    found = jobs_with_files(root)  # before the jobs are read, so that none of a newer job is among them
    old = found - jobs_to_keep(installation.database_url(), installation.generation.file_days)
    for tenant_id, job_id in sorted(old):
        delete_generated(root, tenant_id, job_id)
    return len(old)
