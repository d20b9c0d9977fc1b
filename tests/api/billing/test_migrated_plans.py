"""Upgrading keeps each tenant's months and plans: those of now, and the changes that the audit has of this month."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from api.database.migrate import downgrade, upgrade

NOW = datetime.now(UTC).replace(microsecond=0)
ANCHOR = NOW - timedelta(days=20)
VERSIONS = Path(__file__).resolve().parents[3] / "api" / "database" / "migrations" / "versions"
SUBSCRIPTION = (
    "INSERT INTO subscriptions (tenant_id, customer_id, subscription_id, plan_id, interval, status, "
    "current_period_start, current_period_end, billing_cycle_anchor, past_due_since, as_of) "
    "VALUES (%s, %s, %s, %s, 'monthly', %s, %s, %s, %s, %s, now())"
)


def before_plan_periods() -> str:
    (own,) = VERSIONS.glob("*_plan_periods.py")
    return f"{int(own.name[:4]) - 1:04}"


def test_existing_subscriptions_have_the_plans_that_they_had(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    downgrade(empty_database_url, before_plan_periods())
    with psycopg.connect(empty_database_url, autocommit=True) as connection:

        def run(statement: str, *parameters: Any) -> None:
            connection.execute(statement, parameters)

        since = {"changed": None, "late": NOW - timedelta(days=3), "gone": None}
        for tenant, plan, status in (
            ("changed", "plan-growth", "active"),
            ("late", "plan-starter", "past_due"),
            ("gone", "plan-starter", "canceled"),
        ):
            run("INSERT INTO tenants (id) VALUES (%s)", tenant)
            run(SUBSCRIPTION, tenant, f"cus_{tenant}", f"sub_{tenant}", plan, status, NOW, NOW, ANCHOR, since[tenant])
        for days, before, after in ((60, "free", "plan-starter"), (40, "plan-starter", "free")):
            run(
                "INSERT INTO billing_audit (tenant_id, at, actor, action, before, after) "
                "VALUES ('changed', %s, 'stripe', 'plan', %s, %s)",
                NOW - timedelta(days=days),
                f'{{"planId": "{before}"}}',
                f'{{"planId": "{after}"}}',
            )
        for at, plan in ((ANCHOR + timedelta(seconds=3), "plan-starter"), (NOW - timedelta(days=5), "plan-growth")):
            run(
                "INSERT INTO billing_audit (tenant_id, at, actor, action, after) "
                "VALUES ('changed', %s, 'stripe', 'plan', %s)",
                at,
                f'{{"planId": "{plan}"}}',
            )
        for start, units in ((ANCHOR, 12_000), (ANCHOR - timedelta(days=31), 5)):
            run(
                "INSERT INTO usage_cycles (tenant_id, cycle_start, cycle_end, units, request_limit, plan_id) "
                "VALUES ('changed', %s, %s, %s, 10000, 'plan-starter')",
                start,
                start + timedelta(days=31),
                units,
            )
    upgrade(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        found = connection.execute("SELECT * FROM plan_periods ORDER BY tenant_id, started_at").fetchall()
        months = connection.execute("SELECT anchor, units, settled_at IS NULL FROM usage_cycles ORDER BY 2").fetchall()
    assert [row for row in found if row[0] == "changed"] == [
        ("changed", ANCHOR, "plan-starter", ANCHOR),
        ("changed", ANCHOR + timedelta(seconds=3), "plan-starter", ANCHOR),
        ("changed", NOW - timedelta(days=5), "plan-growth", ANCHOR),
    ]
    assert [row for row in found if row[0] == "late"] == [
        ("late", ANCHOR, "plan-starter", ANCHOR),
        ("late", NOW + timedelta(days=4), "free", None),
    ]
    assert [row[2:] for row in found if row[0] == "gone"] == [("free", None)]
    assert months == [(ANCHOR, 5, False), (ANCHOR, 12_000, True)]
