"""The pipeline keeps figures up to date: counts by a sensor and an asset, accuracy by an hourly run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from feature_store.analytics_sinks import ReleasedModel, record_release
from pipelines.definitions import build_definitions
from pipelines.defs.analytics.activity import roll_up
from pipelines.defs.analytics.online_accuracy import MeasuredReleases, measure_releases
from pipelines.jobs import ANALYTICS
from pipelines.partitions import TENANTS
from pipelines.resources import Installation
from serving.contracts.histories import pack_history
from serving.contracts.messages import BatchRequest, HistoryEvent, RecommendQuery
from serving.predictor import Predictor
from serving.release import release_folder
from tests.feature_store.rows import add_interactions, add_items, add_tenant
from tests.fixtures.releases import FAMILIES, GENRES, ITEMS_PER_GENRE, item_id, publish_small, small_dataset
from tests.pipelines.conftest import TENANT

Connection = psycopg.Connection[Any]
NOON = datetime(2030, 6, 3, 12, tzinfo=UTC)


@pytest.fixture
def shop(connection: Connection) -> Connection:
    items = small_dataset().items
    add_items(connection, TENANT, dict(zip(items.ids, items.metadata, strict=True)))
    return connection


def publish(installation: Installation, connection: Connection, work: Path, at: datetime) -> str:
    """A release that served from this moment on."""
    release = publish_small(installation.paths.bentoml, work, TENANT, catalogue_version=1)
    models = [ReleasedModel(family, "1", 0.75) for family in FAMILIES]
    record_release(installation.database_url(), TENANT, release, models)
    connection.execute("UPDATE release_models SET published_at = %s WHERE release = %s", [at, release])
    return release


def accuracy(connection: Connection) -> dict[tuple[str, str], dict[str, tuple[float, int]]]:
    """(AUC, users) by family, by (day, release)."""
    found: dict[tuple[str, str], dict[str, tuple[float, int]]] = {}
    query = "SELECT day::text, release, family, auc, users FROM daily_accuracy WHERE tenant_id = %s"
    for day, release, family, auc, users in connection.execute(query, [TENANT]):
        found.setdefault((day, release), {})[family] = (auc, users)
    return found


def auc_by_hand(
    installation: Installation, release: str, family: Any, history: list[HistoryEvent], chosen: str
) -> float:
    """The share of the other items, those of the history left out, that the chosen one outranks."""
    predictor = Predictor.load(release_folder(installation.paths.bentoml, TENANT, release), 200)
    n_items = len(GENRES) * ITEMS_PER_GENRE
    query = RecommendQuery(family, 100, pack_history(history), exclude=[event.item_id for event in history])
    (answer,) = predictor.answer(BatchRequest(TENANT, 1, [query])).answers
    ranked = [item.item_id for item in answer]
    assert len(ranked) == n_items - len(history)
    return 1 - ranked.index(chosen) / (len(ranked) - 1)


def test_a_day_is_measured_on_what_its_users_chose_under_the_release(
    installation: Installation, shop: Connection, tmp_path: Path
) -> None:
    release = publish(installation, shop, tmp_path / "models", NOON - timedelta(days=1))
    liked = [item_id("horror", 1), item_id("horror", 2)]
    for hours, item in enumerate(liked, start=30):  # before the release
        add_interactions(shop, TENANT, [("ann", item)], at=NOON - timedelta(hours=hours))
    chosen = item_id("horror", 7)
    add_interactions(shop, TENANT, [("ann", chosen), ("ann", liked[0])], at=NOON - timedelta(hours=1))
    add_interactions(shop, TENANT, [("seen-it-all", liked[1])], at=NOON - timedelta(hours=30))
    add_interactions(shop, TENANT, [("seen-it-all", liked[1]), ("bob", "gone")], at=NOON - timedelta(hours=1))
    (found,) = measure_releases(installation, TENANT, NOON).accuracies
    assert (found.day, found.release) == (NOON.date(), release)
    history = [HistoryEvent(item, "like", 0.8, n) for n, item in enumerate(reversed(liked))]
    figures = accuracy(shop)[("2030-06-03", release)]
    assert set(figures) == set(FAMILIES)
    for family, (auc, users) in figures.items():
        assert users == 1  # who chose nothing but what was seen, or what the release does not know, cannot be asked
        assert auc == pytest.approx(auc_by_hand(installation, release, family, history, chosen))


def test_a_day_under_two_releases_is_measured_in_two_parts(
    installation: Installation, shop: Connection, tmp_path: Path
) -> None:
    first = publish(installation, shop, tmp_path / "models", NOON - timedelta(days=2))
    second = publish(installation, shop, tmp_path / "models", NOON - timedelta(hours=4))
    add_interactions(shop, TENANT, [("ann", item_id("horror", 1))], at=NOON - timedelta(hours=5))
    morning = [("ann", item_id("comedy", 1)), ("bob", item_id("comedy", 1))]
    add_interactions(shop, TENANT, morning, at=NOON - timedelta(hours=3))
    add_interactions(shop, TENANT, [("ann", item_id("comedy", 2))], at=NOON - timedelta(days=3))
    measure_releases(installation, TENANT, NOON)
    users = {part: figures["hybrid"][1] for part, figures in accuracy(shop).items()}
    assert users == {("2030-06-03", first): 1, ("2030-06-03", second): 2}


def test_only_the_last_two_days_are_measured_again_unless_told_and_what_cannot_be_is_kept(
    installation: Installation, shop: Connection, tmp_path: Path
) -> None:
    release = publish(installation, shop, tmp_path / "models", NOON - timedelta(days=5))
    for days in (0, 1, 2):
        add_interactions(shop, TENANT, [("ann", item_id("horror", days))], at=NOON - timedelta(days=days, hours=1))
    assert [each.day.day for each in measure_releases(installation, TENANT, NOON).accuracies] == [1, 2, 3]
    for days in (0, 1, 2):
        add_interactions(shop, TENANT, [("bob", item_id("horror", 9 - days))], at=NOON - timedelta(days=days, hours=1))
    assert [each.day.day for each in measure_releases(installation, TENANT, NOON).accuracies] == [2, 3]
    users = {day: figures["hybrid"][1] for (day, _), figures in accuracy(shop).items()}
    assert users == {"2030-06-01": 1, "2030-06-02": 2, "2030-06-03": 2}
    first = (NOON - timedelta(days=2)).date()
    assert [each.day.day for each in measure_releases(installation, TENANT, NOON, first).accuracies] == [1, 2, 3]
    before = accuracy(shop)
    assert before[("2030-06-01", release)]["hybrid"][1] == 2
    (installation.paths.bentoml / "models" / f"release-{TENANT}" / "latest").unlink()  # no release is in the store
    assert measure_releases(installation, TENANT, NOON) == MeasuredReleases()
    assert accuracy(shop) == before
    assert before[("2030-06-03", release)]


def test_a_release_that_cannot_be_read_is_named_and_the_others_are_measured(
    installation: Installation, shop: Connection, tmp_path: Path
) -> None:
    broken = publish(installation, shop, tmp_path / "models", NOON - timedelta(hours=8))
    sound = publish(installation, shop, tmp_path / "models", NOON - timedelta(hours=4))
    (release_folder(installation.paths.bentoml, TENANT, broken) / "items.parquet").unlink()
    for hours in (2, 6):
        add_interactions(shop, TENANT, [("ann", item_id("horror", hours))], at=NOON - timedelta(hours=hours))
    result = measure_releases(installation, TENANT, NOON)
    assert [each.release for each in result.accuracies] == [sound]
    assert "items.parquet" in result.broken[broken]


def test_the_assets_tell_what_they_counted_and_measured(
    installation: Installation, instance: dg.DagsterInstance, shop: Connection, tmp_path: Path
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT])
    publish(installation, shop, tmp_path / "models", datetime.now(UTC) - timedelta(minutes=2))
    add_interactions(shop, TENANT, [("ann-secret", item_id("horror", 1))], at=datetime.now(UTC))
    job = build_definitions(installation).resolve_job_def(ANALYTICS)
    result = job.execute_in_process(instance=instance, partition_key=TENANT)
    (activity,) = result.asset_materializations_for_node("daily_activity")
    assert activity.metadata["summary"].value.startswith("1 new interactions, 0 of them attributed")
    (measured,) = result.asset_materializations_for_node("daily_accuracy")
    assert {row.data["family"] for row in measured.metadata["accuracy"].records} == set(FAMILIES)
    assert not [entry for entry in instance.all_logs(result.run_id) if "ann-secret" in entry.to_json()]


def test_the_sensor_counts_every_tenant_whatever_befalls_one(
    installation: Installation, instance: dg.DagsterInstance, shop: Connection
) -> None:
    def tick() -> Any:
        context = dg.build_sensor_context(instance=instance, resources={"installation": installation})
        return build_definitions(installation).resolve_sensor_def("activity")(context)

    add_tenant(shop, "a-first")
    add_interactions(shop, "a-first", [("bob", "x")])
    add_interactions(shop, TENANT, [("ann", "x"), ("ann", "y")])
    message = tick().skip_message
    assert "a-first: 1 interactions" in message
    assert f"{TENANT}: 2 interactions" in message
    assert tick().skip_message == "nothing new"
    shop.execute("UPDATE analytics_totals SET next_xid = '999999999999' WHERE tenant_id = 'a-first'")
    add_interactions(shop, TENANT, [("ann", "z")])
    with pytest.raises(ExceptionGroup) as raised:
        tick()
    assert raised.value.exceptions[0].__notes__ == ["tenant a-first"]
    counted = shop.execute("SELECT interactions FROM analytics_totals WHERE tenant_id = %s", [TENANT]).fetchone()
    assert counted == (3,)


def test_counting_stops_when_its_time_is_over(installation: Installation, shop: Connection) -> None:
    add_interactions(shop, TENANT, [("ann", "x")])
    assert roll_up(installation, TENANT, max_seconds=0).interactions == 1


def test_the_schedule_asks_for_tenants_with_something_to_measure(
    installation: Installation, instance: dg.DagsterInstance, shop: Connection, tmp_path: Path
) -> None:
    instance.add_dynamic_partitions(TENANTS, [TENANT, "quiet"])
    definitions = build_definitions(installation)
    at = datetime(2026, 1, 2, 3, 20, tzinfo=UTC)

    def requested() -> list[tuple[str | None, str | None]]:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=at,
            resources={"installation": installation},
            repository_def=definitions.get_repository_def(),
        )
        runs = definitions.resolve_schedule_def("hourly_analytics").evaluate_tick(context).run_requests or []
        return [(run.partition_key, run.run_key) for run in runs]

    assert requested() == []
    publish(installation, shop, tmp_path / "models", datetime.now(UTC) - timedelta(minutes=2))
    assert requested() == []
    add_interactions(shop, TENANT, [("ann", item_id("horror", 1))], at=datetime.now(UTC))
    assert requested() == [(TENANT, f"{TENANT}:{at.isoformat()}")]
