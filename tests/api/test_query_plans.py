"""The hot queries use indexes where tables are large. Explained is what the code sends, with its values.

A quarter of a million interactions are enough: what costs less by an index than by reading the table does so all the
more where the table is larger.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from api.analytics import service as analytics
from api.database.engine import Database, Pool
from api.database.scope import TenantScope
from api.database.session import transaction
from api.interactions.repository import InteractionRepository, InteractionRow
from api.items import service as items
from api.items.catalogue import CatalogueReader
from api.lists.source import ListSource
from api.recommendations.fallback import Fallback
from api.recommendations.history import HistoryReader
from api.recommendations.pages import find_sequence
from configs.history import HistorySettings
from configs.plans import plan
from feature_store import analytics_sources, exports, sources
from feature_store.analytics_sinks import roll_up_step
from feature_store.generation_sources import generation_source
from serving.contracts.filters import parse_filter
from serving.contracts.histories import read_history
from serving.contracts.messages import CataloguePlace
from tests.feature_store.rows import add_tenant
from tests.fixtures import bulk
from tests.fixtures.plans import Plans, TracingPool, tracing_adbc, tracing_engine

SCOPE = TenantScope("big")
USERS, ITEMS, INTERACTIONS, IMPRESSIONS = 12_500, 25_000, 250_000, 12_500
TAIL = 500


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    """Interactions of which all but the newest are counted."""
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        for tenant, share in (("big", 1.0), ("small", 0.001)):
            add_tenant(connection, tenant)
            bulk.add_users(connection, tenant, int(USERS * share))
            with bulk.without_indexes(connection, "items"):
                bulk.add_items(connection, tenant, int(ITEMS * share))
            with bulk.without_indexes(connection, "interactions"):
                bulk.add_interactions(
                    connection, tenant, int(INTERACTIONS * share), int(USERS * share), int(ITEMS * share), 90
                )
            bulk.add_impressions(connection, tenant, int(IMPRESSIONS * share), USERS, ITEMS, 30)
        connection.execute(
            "INSERT INTO item_lists (tenant_id, source, of_item, item_ids, scores) SELECT 'big', 'trending', '', "
            "array_agg('item-' || n), array_agg(1.0 / n) FROM generate_series(1, 1000) AS n"
        )
        connection.execute("VACUUM (ANALYZE)")
        roll_up_step(module_database_url, "big", step_rows=10 * INTERACTIONS)
        bulk.add_interactions(connection, "big", TAIL, USERS, ITEMS, 0.01)
        bulk.add_impressions(connection, "big", TAIL, USERS, ITEMS, 0.01)
        bulk.add_users(connection, "big", TAIL, "new")
    return module_database_url


@pytest.fixture
def plans() -> Plans:
    return Plans()


@pytest.fixture
def pooled(url: str, plans: Plans) -> Callable[[Callable[[Pool], Awaitable[Any]]], Any]:
    """Runs what the hot routes run, over a traced pool."""

    async def run(work: Callable[[Pool], Awaitable[Any]]) -> Any:
        return await work(TracingPool(url, plans))

    return lambda work: asyncio.run(run(work))


@pytest.fixture
def in_session(url: str, plans: Plans) -> Callable[[Callable[..., Awaitable[Any]]], Any]:
    """Runs a service in a traced session."""

    async def run(work: Callable[..., Awaitable[Any]]) -> Any:
        database = Database(url, pool_min=1)
        try:
            with tracing_engine(database.engine, url, plans):
                async with transaction(database) as session:
                    return await work(session)
        finally:
            await database.close()

    return lambda work: asyncio.run(run(work))


@pytest.fixture
def exporting(url: str, plans: Plans) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(tracing_adbc(url, plans))
        yield


@pytest.mark.parametrize("exclude_seen", ["none", "bought", "all"])
def test_history_and_seen_items(plans: Plans, pooled: Any, exclude_seen: str) -> None:
    view = pooled(lambda pool: HistoryReader(pool, HistorySettings()).view(SCOPE, "user-0", exclude_seen))
    assert len(read_history(view.history)) == 200
    assert plans.indexes("interactions") == {"interactions_user_idx"}


def test_history_of_a_user_who_is_new(plans: Plans, pooled: Any) -> None:
    view = pooled(lambda pool: HistoryReader(pool, HistorySettings()).view(SCOPE, "nobody", "all"))
    assert read_history(view.history) == []
    assert plans.indexes("interactions") == {"interactions_user_idx"}


def test_whether_recommended_items_may_be_shown(plans: Plans, pooled: Any) -> None:
    wanted = [f"item-{n}" for n in range(0, ITEMS, ITEMS // 100)]
    assert len(pooled(lambda pool: CatalogueReader(pool).live(SCOPE, wanted))) == 100
    assert plans.indexes("items") == {"items_pkey"}


def test_what_changed_in_the_catalogue(plans: Plans, pooled: Any) -> None:
    assert pooled(lambda pool: CatalogueReader(pool).delta(SCOPE, CataloguePlace(1))).changes == []
    assert plans.indexes("items") == {"items_tenant_id_version_idx"}


def test_the_next_part_of_what_changed_in_the_catalogue(plans: Plans, pooled: Any) -> None:
    place = CataloguePlace(2, "item-9")
    assert pooled(lambda pool: CatalogueReader(pool).delta(SCOPE, place)).since_item == "item-9"
    assert plans.indexes("items") == {"items_tenant_id_version_idx"}


@pytest.mark.parametrize("filter_", [None, {"category": "category 7"}, {"colour": "vermilion"}])
def test_the_fallback(plans: Plans, pooled: Any, filter_: dict[str, Any] | None) -> None:
    parsed = None if filter_ is None else parse_filter(filter_)
    ranked = pooled(lambda pool: Fallback(ListSource(pool)).rank(SCOPE, 10, ["item-0"], parsed))
    assert len(ranked) == (5 if filter_ == {"colour": "vermilion"} else 10)
    assert plans.indexes("interactions") == {"interactions_recent_idx"}
    assert plans.indexes("items") <= {"items_pkey", "items_metadata_idx"}


def test_the_newest_items(plans: Plans, pooled: Any) -> None:
    assert len(pooled(lambda pool: ListSource(pool).top(SCOPE, "latest", 10, None, exclude=["item-0"]))) == 10
    assert plans.indexes("items") == {"items_newest_idx"}


def test_what_a_sequence_of_pages_has_shown(plans: Plans, pooled: Any, url: str) -> None:
    recent = (
        "SELECT recommendation_id FROM impressions WHERE tenant_id = 'big' AND created_at > now() - interval '50 min'"
    )
    with psycopg.connect(url) as connection:
        ((id_,),) = connection.execute(f"{recent} LIMIT 1").fetchall()
    assert len(pooled(lambda pool: find_sequence(pool, SCOPE, id_)).shown) == 10
    assert plans.indexes("impressions") == {"impressions_pkey"}


@pytest.mark.parametrize("filter_", [None, {"category": "category 7"}])
def test_a_stored_list(plans: Plans, pooled: Any, filter_: dict[str, Any] | None) -> None:
    parsed = None if filter_ is None else parse_filter(filter_)
    assert len(pooled(lambda pool: ListSource(pool).top(SCOPE, "trending", 10, parsed))) == 10
    assert plans.indexes("items") == {"items_pkey"}


def test_what_a_user_saw_last(plans: Plans, pooled: Any) -> None:
    assert pooled(lambda pool: ListSource(pool).top(SCOPE, "recently-viewed", 10, user_id="user-7"))
    assert plans.indexes("interactions") == {"interactions_user_idx"}
    assert plans.indexes("items") == {"items_pkey"}


def test_recording_an_interaction(plans: Plans, pooled: Any) -> None:
    happened = InteractionRow(uuid4(), "user-7", "item-7", "click", None, datetime.now(UTC), None)
    assert pooled(lambda pool: InteractionRepository(pool, SCOPE, plan("unlimited")).add(happened))
    assert plans.indexes("items") == {"items_pkey"}


def test_recording_a_batch(plans: Plans, pooled: Any) -> None:
    rows = [
        InteractionRow(uuid4(), f"user-{n}", f"item-{n}", "click", None, datetime.now(UTC), None) for n in range(200)
    ]
    assert len(pooled(lambda pool: InteractionRepository(pool, SCOPE, plan("unlimited")).add_all(rows)).ids) == 200
    assert plans.indexes("items") == {"items_pkey"}


@pytest.mark.parametrize("offset", [0, 5_000])
def test_a_page_of_items(plans: Plans, in_session: Any, offset: int) -> None:
    found, total = in_session(lambda session: items.list_items(session, SCOPE, None, offset, 20))
    assert (len(found), total) == (20, ITEMS)
    assert plans.indexes("items") == {"items_pkey"}


@pytest.mark.parametrize(("search", "total"), [("vermilion", 5), ("thing number 4242", 1)])
def test_a_search(plans: Plans, in_session: Any, search: str, total: int) -> None:
    found = in_session(lambda session: items.list_items(session, SCOPE, search, 0, 20))
    assert found[1] == total
    assert plans.indexes("items") <= {"items_search_idx", "items_pkey"}
    assert "items_search_idx" in plans.indexes("items")


def test_statistics(plans: Plans, in_session: Any) -> None:
    found = in_session(lambda session: analytics.stats(session, SCOPE))
    assert found.total_interactions >= INTERACTIONS + TAIL
    assert (found.total_users, found.total_items) == (USERS + TAIL, ITEMS)
    assert found.total_recommendations == 10 * (IMPRESSIONS + TAIL)
    assert plans.indexes("interactions") == {"interactions_xid_idx"}
    assert plans.indexes("impressions") == {"impressions_xid_idx"}
    assert plans.indexes("users") == {"users_xid_idx"}
    assert plans.indexes("analytics_active_users") == {"analytics_active_users_pkey"}


def test_statistics_day_by_day(plans: Plans, in_session: Any) -> None:
    found = in_session(lambda session: analytics.series(session, SCOPE, "90d"))
    assert sum(day.total_recommendations for day in found) == 10 * (IMPRESSIONS + TAIL)
    assert plans.indexes("interactions") == {"interactions_xid_idx"}
    assert plans.indexes("impressions") == {"impressions_xid_idx"}
    assert plans.indexes("analytics_active_users") == {"analytics_active_users_pkey"}


@pytest.mark.usefixtures("exporting")
def test_an_export_of_what_is_new(url: str, plans: Plans, tmp_path: Path) -> None:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT next_xid::text FROM analytics_totals WHERE tenant_id = 'big'").fetchone()
    assert row is not None
    with sources.read_new_interactions(url, "big", int(row[0])) as new:
        assert sum(batch.num_rows for batch in new.batches) >= TAIL
    assert sources.unexported(url, {"big": (int(row[0]), None)}, 5_000)[0].interactions >= TAIL
    assert plans.indexes("interactions") == {"interactions_xid_idx"}


@pytest.mark.usefixtures("exporting")
def test_an_export_of_everything_of_a_small_tenant_beside_a_big_one(url: str, plans: Plans, tmp_path: Path) -> None:
    assert exports.export_interactions(url, tmp_path, "small").new_rows == INTERACTIONS // 1_000
    assert plans.indexes("interactions") <= {"interactions_xid_idx", "interactions_recent_idx", "interactions_user_idx"}


@pytest.mark.usefixtures("exporting")
def test_events_for_a_generation(url: str, plans: Plans) -> None:
    with generation_source(url, "big") as source:
        assert source.recent_events([f"user-{n}" for n in range(500)], 200).num_rows
    assert plans.indexes("interactions") == {"interactions_user_idx"}


@pytest.mark.usefixtures("exporting")
def test_questions_of_a_day(url: str, plans: Plans) -> None:
    start = datetime.now(UTC) - timedelta(days=20)
    assert analytics_sources.evaluation_events(url, "big", start, start + timedelta(days=1), 100, 200).num_rows
    assert plans.indexes("interactions") == {"interactions_user_idx", "interactions_recent_idx"}


@pytest.mark.usefixtures("exporting")
def test_counting_what_is_new(url: str, plans: Plans) -> None:
    assert roll_up_step(url, "big").interactions >= TAIL
    assert plans.indexes("interactions") == {"interactions_xid_idx"}
    assert plans.indexes("users") == {"users_xid_idx"}
    assert plans.indexes("impressions") <= {
        *("impressions_xid_idx", "impressions_pkey", "impressions_user_idx", "impressions_created_at_idx")
    }
