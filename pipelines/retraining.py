"""When a tenant's models are due."""

from dataclasses import dataclass

from configs.settings import PipelineSettings
from feature_store import sources
from feature_store.lake import TenantLake
from pipelines.resources import Installation


@dataclass(frozen=True)
class Arrivals:
    """How many interactions the last export left in the lake, and how many came since."""

    in_lake: int
    new: int
    next_xid: int  # where the next export starts; the same until it has run

    def missing(self, settings: PipelineSettings) -> int:
        """Interactions to wait for until training is due, 0 where it is.

        A lake below the first threshold cannot have been trained on, however often it was exported.
        """
        if self.in_lake < settings.first_model_after:
            return max(0, settings.first_model_after - self.in_lake - self.new)
        return max(0, settings.retrain_after - self.new)


def arrivals(installation: Installation, tenant_id: str) -> Arrivals:
    """Count a tenant's new interactions in the database, no further than the thresholds need."""
    cursor = TenantLake(installation.paths.lake, tenant_id).cursor()
    at_most = max(installation.pipeline.retrain_after, installation.pipeline.first_model_after)
    new = sources.count_new_interactions(installation.database_url(), tenant_id, cursor.next_xid, at_most)
    return Arrivals(cursor.rows, new, cursor.next_xid)
