"""An import beyond the limits of the plan is refused as a whole. Changes of existing rows are not."""

import psycopg
import pytest

from feature_store.loaders.problems import ImportRefusedError
from tests.api.imports.conftest import Importer


def items(count: int, title: str = "Tea") -> str:
    return "id,title\n" + "".join(f"item-{n},{title}\n" for n in range(count))


def events(users: int) -> str:
    return "userId,itemId,interactionType,timestamp\n" + "".join(
        f"user-{n},item-1,like,2025-01-01T10:00:00Z\n" for n in range(users)
    )


@pytest.fixture
def free(importer: Importer) -> Importer:
    """100 items and 100 users."""
    with psycopg.connect(importer.url) as connection:
        connection.execute("UPDATE tenants SET plan = 'free'")
    return importer


def test_as_many_items_as_the_plan_takes_and_no_more(free: Importer) -> None:
    free.load(free.write("items.csv", items(100)))
    with pytest.raises(ImportRefusedError, match="Free takes 100 items, and with this import there would be 101"):
        free.load(free.write("items.csv", items(101)))
    assert free.counts() == (100, 0, 0)
    free.load(free.write("items.csv", items(100, "Salt")))
    assert free.rows("SELECT DISTINCT metadata ->> 'title' FROM items") == [("Salt",)]


def test_as_many_users_as_the_plan_takes_and_no_more(free: Importer) -> None:
    with psycopg.connect(free.url) as connection:
        connection.execute("INSERT INTO users (tenant_id, id, password_hash) VALUES ('shop', 'boss', 'x')")
    tea = free.write("items.csv", items(2))
    with pytest.raises(ImportRefusedError, match="Free takes 100 users, and with this import there would be 101"):
        free.load(tea, free.write("events.csv", events(101)))
    assert free.counts() == (0, 1, 0)
    free.load(tea, free.write("events.csv", events(100)))
    assert free.counts() == (2, 101, 100)


def test_portal_users_who_interact_by_an_import_count(free: Importer) -> None:
    with psycopg.connect(free.url) as connection:
        connection.execute(
            "INSERT INTO users (tenant_id, id, password_hash) "
            "SELECT 'shop', 'user-' || n, 'x' FROM generate_series(0, 200) AS n"
        )
    tea = free.write("items.csv", items(2))
    with pytest.raises(ImportRefusedError, match="Free takes 100 users, and with this import there would be 101"):
        free.load(tea, free.write("events.csv", events(101)))
    free.load(tea, free.write("events.csv", events(100)))
    assert free.counts() == (2, 201, 100)


def test_a_subscription_makes_room(free: Importer) -> None:
    with psycopg.connect(free.url) as connection:
        connection.execute(
            "INSERT INTO plan_periods (tenant_id, started_at, plan_id, anchor) "
            "VALUES ('shop', now(), 'plan-starter', now())"
        )
    free.load(free.write("items.csv", items(101)), free.write("events.csv", events(101)))
    assert free.counts() == (101, 101, 101)
