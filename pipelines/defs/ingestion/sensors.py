"""A tenant's partition comes and goes with the tenant."""

import dagster as dg

from feature_store import sources
from pipelines.partitions import TENANTS, tenants
from pipelines.resources import Installation


def new_tenants(status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """A sensor that starts in this status."""

    @dg.sensor(name="new_tenants", minimum_interval_seconds=30, default_status=status)
    def sensor(
        context: dg.SensorEvaluationContext, installation: dg.ResourceParam[Installation]
    ) -> dg.SensorResult | dg.SkipReason:
        """Adds a partition for every tenant of the database, and removes those of deleted tenants."""
        wanted = set(sources.tenants(installation.database_url()))
        present = set(context.instance.get_dynamic_partitions(TENANTS))
        requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        if added := sorted(wanted - present):
            requests.append(tenants.build_add_request(added))
        if gone := sorted(present - wanted):
            requests.append(tenants.build_delete_request(gone))
        if not requests:
            return dg.SkipReason(f"all {len(wanted)} tenants have their partition")
        return dg.SensorResult(dynamic_partitions_requests=requests)

    return sensor
