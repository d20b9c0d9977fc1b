"""The sensor moves the old interactions of every tenant, part by part, and nothing unless an operator says so."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
import pytest

from configs.retention import RetentionSettings
from feature_store import interaction_archive
from feature_store.analytics_sinks import roll_up_step
from feature_store.exports import export_interactions
from pipelines.defs.retention.sensors import old_interactions
from pipelines.defs.retention.steps import archive_old_interactions
from pipelines.resources import Installation
from tests.feature_store.rows import add_interactions, add_tenant

LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)


def test_old_interactions_of_all_tenants_are_moved_in_parts_where_a_period_is_set(
    installation: Installation,
    connection: psycopg.Connection[Any],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("MAX_USERS", 2), ("MAX_MOVED", 3), ("KEPT_NEWEST", 2)):
        monkeypatch.setattr(interaction_archive, name, value)
    add_tenant(connection, "beta")
    add_tenant(connection, "unexported")
    for tenant in ("acme", "beta", "unexported"):
        users = [f"user-{number}" for number in range(5)]
        connection.cursor().executemany(
            "INSERT INTO users (tenant_id, id) VALUES (%s, %s)", [(tenant, u) for u in users]
        )
        add_interactions(connection, tenant, [(user, f"i{n}") for user in users for n in range(2)], arrived=LONG_AGO)
        add_interactions(connection, tenant, [("user-1", "new")] * 2, at=datetime.now(UTC))
        if tenant != "unexported":
            export_interactions(installation.database_url(), installation.paths.lake, tenant)
            roll_up_step(installation.database_url(), tenant)

    def tick(days: int | None) -> dg.SensorResult | dg.SkipReason:
        chosen = replace(installation, retention=RetentionSettings(interaction_days=days))
        return old_interactions(dg.build_sensor_context(instance, resources={"installation": chosen}))

    assert isinstance(tick(None), dg.SkipReason)
    chosen = replace(installation, retention=RetentionSettings(interaction_days=100))
    moved, cursor = archive_old_interactions(chosen, seconds=-1.0)
    assert (moved, cursor) == (0, '["acme", ""]'), "no time is left"
    moved, cursor = archive_old_interactions(chosen, cursor='["beta", "user-1"]')
    assert (moved, cursor) == (6, None), "the users after that one, of that tenant and the later ones"
    result = tick(100)
    assert isinstance(result, dg.SensorResult) and "14 interactions" in str(result.skip_reason) and result.cursor == ""
    left = connection.execute("SELECT tenant_id, count(*) FROM interactions GROUP BY tenant_id ORDER BY 1").fetchall()
    assert left == [("acme", 2), ("beta", 2), ("unexported", 12)]
    assert connection.execute("SELECT count(*) FROM all_interactions").fetchone() == (36,)
