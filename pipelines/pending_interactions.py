"""Whether a tenant has enough new interactions to retrain its models."""

from dataclasses import dataclass

from configs.settings import PipelineSettings
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
    installation: Installation, tenant_id: str, settings: PipelineSettings | None = None
) -> PendingInteractions:
    """Count a tenant's new interactions, those of the database up to the larger of the two thresholds.

    An export without a training, as the job `measure_drift` makes, takes none of them away.

    settings: in force for the tenant; None: those of the installation.
    """
    cursor = TenantLake(installation.paths.lake, tenant_id).cursor()
    settings = settings or installation.pipeline
    at_most = max(settings.retrain_after, settings.first_model_after)
    url = installation.database_url()
    new = sources.count_new_interactions(url, tenant_id, cursor.next_xid, at_most, cursor.cluster)
    snapshot = newest_snapshot(installation, tenant_id)
    unseen = 0 if snapshot is None else max(0, cursor.rows - snapshot.cursor.rows)
    return PendingInteractions(cursor.rows, new + unseen, cursor.next_xid)
