"""Whether a tenant has enough new interactions to retrain its models."""

from collections.abc import Mapping
from dataclasses import dataclass

from configs.pipelines import PipelineSettings
from feature_store import sources
from feature_store.lake import TenantLake
from pipelines.newest_snapshot import newest_snapshot
from pipelines.resources import Installation


@dataclass(frozen=True)
class PendingInteractions:
    """Interactions that no training has seen yet, beside those that are in the lake."""

    in_lake: int
    new: int  # those of the lake that came after the last snapshot among them
    next_xid: int  # where the next export starts; the same until it has run

    def missing(self, settings: PipelineSettings) -> int:
        """How many more interactions it takes until training is due; 0 where it is due.

        A lake with fewer than `first_model_after` interactions was never trained on, so all of them count.
        """
        if self.in_lake < settings.first_model_after:
            return max(0, settings.first_model_after - self.in_lake - self.new)
        return max(0, settings.retrain_after - self.new)


def pending_interactions(
    installation: Installation, settings: Mapping[str, PipelineSettings]
) -> dict[str, PendingInteractions]:
    """Count tenants' new interactions, those of the database up to the largest of their thresholds.

    One query counts for all tenants, since a sensor has a minute for thousands of them.
    An export without a training, as the job `measure_drift` makes, takes none of them away.

    settings: in force, by tenant.
    """
    cursors = {tenant: TenantLake(installation.paths.lake, tenant).cursor() for tenant in settings}
    places = {tenant: (cursor.next_xid, cursor.cluster) for tenant, cursor in cursors.items()}
    at_most = max((max(each.retrain_after, each.first_model_after) for each in settings.values()), default=0)
    found = {}
    for counted in sources.unexported(installation.database_url(), places, at_most):
        cursor, snapshot = cursors[counted.tenant_id], newest_snapshot(installation, counted.tenant_id)
        unseen = 0 if snapshot is None else max(0, cursor.rows - snapshot.cursor.rows)
        new = counted.interactions + unseen
        found[counted.tenant_id] = PendingInteractions(cursor.rows, new, cursor.next_xid)
    return found
