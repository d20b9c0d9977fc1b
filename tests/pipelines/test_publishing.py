"""A run whose families all failed the rule ends well, and says why nothing is published."""

from typing import Any

import dagster as dg
import psycopg

from pipelines.definitions import build_definitions
from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from serving.contracts.messages import ALGORITHMS
from serving.release import list_releases
from tests.pipelines.conftest import SNAPSHOT, TENANT, write_values


def test_where_no_family_passes_the_run_succeeds_and_names_the_reasons(
    installation: Installation, instance: dg.DagsterInstance, connection: psycopg.Connection[Any]
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    reasons = {family: {"reason": f"{family} is not above the floor"} for family in ALGORITHMS}
    write_values(installation, feature_snapshot=SNAPSHOT, champions=reasons)

    job = build_definitions(installation).resolve_job_def(RETRAIN)
    result = job.execute_in_process(
        instance=instance, partition_key=TENANT, asset_selection=[dg.AssetKey("release")], raise_on_error=False
    )

    assert result.success
    (event,) = result.asset_materializations_for_node("release")
    assert event.metadata["summary"].value == (
        "nothing published, because no family has a champion; popular items answer requests"
    )
    rows = [row.data for row in event.metadata["families_without_champion"].records]
    assert {"family": "hybrid", "reason": "hybrid is not above the floor"} in rows
    assert [row["family"] for row in rows] == list(ALGORITHMS)
    assert list_releases(installation.paths.bentoml) == {}
