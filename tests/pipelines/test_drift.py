"""A tenant's drift: measured from its lake, shown in Dagster, told to its administrators, and acted on."""

import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from feature_store import columns as c
from pipelines.__main__ import app as pipelines
from pipelines.definitions import build_definitions
from pipelines.defs.monitoring.assets import CHECKS
from pipelines.defs.monitoring.flag import (
    DriftState,
    PublishingStoppedError,
    read_drift,
    refuse_while_stopped,
    write_drift,
)
from pipelines.jobs import RETRAIN
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from tests.feature_store.lakes import START, interaction, write_lake
from tests.pipelines.conftest import SNAPSHOT, TENANT, write_values

Connection = psycopg.Connection[Any]
DAYS, EVENTS = 42, 240
GENRES = ("drama", "comedy", "horror", "news")
CATALOGUE = {f"{genre}-{number}": f'{{"genre": "{genre}"}}' for genre in GENRES for number in range(10)}


def days_of_events(first: int, last: int, genres: Sequence[float], events: int = EVENTS) -> list[Any]:
    """Rows of the lake on the days `first <= day < last`. genres: the share of each."""
    rng = np.random.default_rng(first)
    n = (last - first) * events
    genre, number, user = rng.choice(GENRES, n, p=genres), rng.integers(10, size=n), rng.integers(100, size=n)
    minute, kind = rng.integers(1_440, size=n), rng.choice(c.INTERACTION_TYPES[:2], n, p=[0.7, 0.3])
    return [
        interaction(
            first * 100_000 + row,
            f"user-secret-{user[row]}",
            f"{genre[row]}-{number[row]}",
            (first + row // events) * 1_440 + int(minute[row]),
            interaction_type=str(kind[row]),
        )
        for row in range(n)
    ]


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
    assert failed["categories"].startswith("`genre`: population stability index 0.")
    (drift,) = result.asset_materializations_for_node("drift")
    day = (START + np.timedelta64(DAYS, "D").item()).date().isoformat()
    assert str(drift.metadata["summary"].value).startswith(f"{day}: drift of categories")
    assert "data:image/png" in str(drift.metadata["categories by day"].value)
    assert read_drift(installation, TENANT).drifted == tuple(sorted(failed))
    assert not [entry for entry in instance.all_logs(result.run_id) if "user-secret" in repr(entry)]


@pytest.mark.usefixtures("connection")
def test_a_fall_of_the_volume_fails_its_check_on_its_first_day(
    installation: Installation, instance: dg.DagsterInstance
) -> None:
    rows = [*days_of_events(0, DAYS, USUAL), *days_of_events(DAYS, DAYS + 1, USUAL, events=EVENTS * 6 // 10)]
    write_lake(installation.paths.lake, rows, CATALOGUE)
    failed = failed_checks(measure(installation, instance))
    assert set(failed) == {"volume"}
    assert failed["volume"].startswith("144 events, 60% of those expected")


def settings_of(connection: Connection, **groups: Any) -> None:
    connection.execute(
        "INSERT INTO pipeline_settings (tenant_id, settings) VALUES (%s, %s) "
        "ON CONFLICT (tenant_id) DO UPDATE SET settings = excluded.settings",
        [TENANT, json.dumps(groups)],
    )


def lift(*options: str) -> Any:
    return CliRunner().invoke(pipelines, ["lift-drift", "--tenant", TENANT, *options])


def test_drift_stops_publishing_and_is_told_once_until_a_quiet_day_or_a_person_lifts_it(
    installation: Installation, instance: dg.DagsterInstance, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", installation.database.resolve(installation.paths))
    monkeypatch.setenv("RECOMMENDAI_STATE_DIR", str(installation.paths.root))
    settings_of(connection, drift={"action": "stop_publishing"}, alerts={"emails": ["ops@acme.example"]})
    lake = installation.paths.lake
    write_lake(lake, [*days_of_events(0, DAYS, USUAL), *days_of_events(DAYS, DAYS + 1, SHIFTED)], CATALOGUE)
    measure(installation, instance)
    with pytest.raises(PublishingStoppedError, match="lift-drift --tenant acme"):
        refuse_while_stopped(installation, TENANT)
    ((subject, facts),) = connection.execute("SELECT subject, facts FROM alerts WHERE event = 'drift'").fetchall()
    assert subject.startswith("Drift of categories")
    assert "categories of genre" in facts["measures"]

    assert lift("--reason", " ").exit_code == 1
    assert lift("--reason", "a sale", "--by", "ann").exit_code == 0
    assert lift("--reason", "a sale").exit_code == 1
    refuse_while_stopped(installation, TENANT)
    (again,) = measure(installation, instance).asset_materializations_for_node("drift")
    refuse_while_stopped(installation, TENANT)  # the same day stops nothing any more
    assert str(again.metadata["lifted"].value).startswith("by ann: a sale")

    write_lake(lake, days_of_events(DAYS + 1, DAYS + 2, SHIFTED))
    measure(installation, instance)
    assert read_drift(installation, TENANT).stops_publishing
    assert connection.execute("SELECT count(*) FROM alerts").fetchone() == (1,)  # it goes on, which is no news
    write_lake(lake, days_of_events(DAYS + 2, DAYS + 3, USUAL))
    measure(installation, instance)
    refuse_while_stopped(installation, TENANT)


@pytest.mark.parametrize(("catalogue", "failed"), [(None, "drift"), (CATALOGUE, "release")])
def test_drift_stops_the_release_of_its_own_run_but_an_error_of_the_measuring_does_not(
    installation: Installation,
    instance: dg.DagsterInstance,
    connection: Connection,
    catalogue: dict[str, str] | None,
    failed: str,
) -> None:
    """Without a catalogue nothing can be measured."""
    settings_of(connection, drift={"action": "stop_publishing"})
    rows = [*days_of_events(0, DAYS, USUAL), *days_of_events(DAYS, DAYS + 1, SHIFTED)]
    write_lake(installation.paths.lake, rows, catalogue)
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    write_values(installation, feature_snapshot=SNAPSHOT, champions={})
    keys = [dg.AssetKey("release"), dg.AssetKey("drift")]
    result = (
        build_definitions(installation)
        .resolve_job_def(RETRAIN)
        .execute_in_process(instance=instance, partition_key=TENANT, asset_selection=keys, raise_on_error=False)
    )
    assert not result.success  # the run is red, of which the tenant is told
    assert [event.step_key for event in result.get_step_failure_events()] == [failed]
    (other,) = {"drift", "release"} - {failed}
    assert result.asset_materializations_for_node(other)


def test_drift_starts_one_retraining_a_day_where_the_tenant_wants_it(
    installation: Installation, instance: dg.DagsterInstance, connection: Connection
) -> None:
    def requested() -> list[tuple[str | None, str | None]]:
        context = dg.build_sensor_context(instance=instance, resources={"installation": installation})
        result: Any = build_definitions(installation).resolve_sensor_def("retrain_after_drift")(context)
        assert all(run.tags["trigger"] == "drift" for run in result.run_requests)
        return [(run.partition_key, run.run_key) for run in result.run_requests]

    instance.add_dynamic_partitions(TENANTS, [TENANT])
    day = date(2026, 3, 1)
    write_drift(installation, TENANT, DriftState().after(day, day, ["volume"], "retrain"))
    assert requested() == []
    settings_of(connection, drift={"action": "retrain"})
    assert requested() == requested() == [(TENANT, f"{TENANT}:2026-03-01")]  # Dagster starts one run per key
    write_drift(installation, TENANT, DriftState().after(day, day, [], "retrain"))
    assert requested() == []
