"""A tenant's drift: measured from its lake, shown in Dagster, told to its administrators, and acted on."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import numpy as np
import psycopg
import pytest

from feature_store import columns as c
from pipelines.definitions import build_definitions
from pipelines.defs.monitoring.assets import CHECKS
from pipelines.defs.monitoring.flag import read_drift
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from tests.feature_store.lakes import START, interaction, write_lake
from tests.pipelines.conftest import TENANT

Connection = psycopg.Connection[Any]
DAYS, EVENTS = 50, 240
GENRES = ("drama", "comedy", "horror", "news")
CATALOGUE = {f"{genre}-{number}": f'{{"genre": "{genre}"}}' for genre in GENRES for number in range(10)}


def days_of_events(first: int, last: int, genres: Sequence[float], events: int = EVENTS, seed: int = 0) -> list[Any]:
    """Rows of the lake on the days `first <= day < last`. genres: the share of each."""
    rng = np.random.default_rng(seed + first)
    rows = []
    for day in range(first, last):
        for number in range(events):
            item = f"{rng.choice(GENRES, p=genres)}-{rng.integers(10)}"
            minutes = day * 1_440 + int(rng.integers(1_440))
            kind = rng.choice(c.INTERACTION_TYPES[:2], p=[0.7, 0.3])
            user = f"user-secret-{rng.integers(100)}"
            rows.append(interaction(day * 10_000 + number, user, item, minutes, interaction_type=str(kind)))
    return rows


USUAL = (0.4, 0.3, 0.2, 0.1)
SHIFTED = (0.2, 0.3, 0.2, 0.3)


def measure(installation: Installation, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    definitions = build_definitions(installation)
    if not instance.has_dynamic_partition(TENANTS, TENANT):
        instance.add_dynamic_partitions(TENANTS, [TENANT])
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, partition_key=TENANT, asset_selection=[dg.AssetKey("drift")])
    assert result.success
    return result


def failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    found = result.get_asset_check_evaluations()
    assert {check.check_name for check in found} == set(CHECKS)
    assert {check.severity for check in found} == {dg.AssetCheckSeverity.WARN}
    return {check.check_name: check.description or "" for check in found if not check.passed}


@pytest.mark.usefixtures("connection")
def test_a_shift_of_categories_fails_its_check_on_its_first_day(
    installation: Installation, instance: dg.DagsterInstance
) -> None:
    lake = installation.paths.lake
    write_lake(lake, days_of_events(0, DAYS, USUAL), CATALOGUE)
    quiet = measure(installation, instance)
    assert failed_checks(quiet) == {}
    write_lake(lake, days_of_events(DAYS, DAYS + 1, SHIFTED))
    result = measure(installation, instance)
    failed = failed_checks(result)
    assert {"categories"} <= set(failed) <= {"categories", "popularity"}  # popular items are of popular genres
    assert failed["categories"].startswith("genre: population stability index 0.")
    (drift,) = result.asset_materializations_for_node("drift")
    day = (START + np.timedelta64(DAYS, "D").item()).date().isoformat()
    assert str(drift.metadata["summary"].value).startswith(f"{day}: drift of categories")
    assert "data:image/png" in drift.metadata["categories by day"].value
    assert read_drift(installation, TENANT).drifted == tuple(sorted(failed))
    assert not [entry for entry in instance.all_logs(result.run_id) if "user-secret" in entry.to_json()]


@pytest.mark.usefixtures("connection")
def test_a_fall_of_the_volume_fails_its_check_on_its_first_day(
    installation: Installation, instance: dg.DagsterInstance
) -> None:
    rows = [*days_of_events(0, DAYS, USUAL), *days_of_events(DAYS, DAYS + 1, USUAL, events=EVENTS * 6 // 10)]
    write_lake(installation.paths.lake, rows, CATALOGUE)
    failed = failed_checks(measure(installation, instance))
    assert set(failed) == {"volume"}
    assert failed["volume"].startswith("144 events, 60% of those expected")
