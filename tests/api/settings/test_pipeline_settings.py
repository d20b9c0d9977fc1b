"""`/api/settings/pipeline`: what a tenant's administrators set, who sees it, and that its secret stays one."""

import json
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from configs.postgres import DatabaseSettings
from configs.tenant_pipeline import DecidingMetric, FloorModel, TenantPipeline
from pipelines.resources import Installation
from pipelines.tenant_settings import tenant_settings
from tests.fixtures.portal import Portal
from tests.fixtures.search import tables_with
from training.evaluation.metrics import METRICS
from training.evaluation.paired_comparison import BASELINES
from training.evaluation.report import RANDOM

PATH = "/api/settings/pipeline"
WEBHOOK = {"alerts": {"webhookUrl": "https://ops.example.com/hook?token=t0psecret"}}
SECRET = "a secret that nobody sees again"


def put(portal: Portal, admin: dict[str, str], body: Any, status: int = 200) -> Any:
    answer = portal.client.put(PATH, json=body, headers=admin)
    assert answer.status_code == status, answer.text
    return answer.json()


def get(portal: Portal, admin: dict[str, str]) -> Any:
    answer = portal.client.get(PATH, headers=admin)
    assert answer.status_code == 200, answer.text
    return answer.json()


def read_by_pipeline(portal: Portal, tenant: str) -> TenantPipeline:
    return tenant_settings(Installation(database=DatabaseSettings(url=SecretStr(portal.tenants.url))), tenant)


def test_what_is_put_is_shown_and_read_by_the_pipeline_of_that_tenant_alone(portal: Portal) -> None:
    admin, other = portal.admin(), portal.admin("other")
    body = {
        "search": {"minutes": 5},
        "training": {"retrainAfter": 100, "nightly": False, "seconds": 60},
        "promotion": {"undecided": "keep", "floors": {"hybrid": {"model": "item-knn"}}, "rails": {"maxQueryMs": 20}},
        "drift": {"psi": 0.1, "action": "retrain"},
        "alerts": {"emails": ["ops@acme.example", "ops@acme.example"], "events": ["drift"]},
    }
    shown = put(portal, admin, body)
    assert get(portal, admin) == shown
    assert (shown["search"]["minutes"], shown["search"]["everyDays"]) == (5, 7)
    assert shown["alerts"]["emails"] == ["ops@acme.example"]
    ours = read_by_pipeline(portal, "acme")
    assert (ours.training.retrain_after, ours.training.nightly, ours.training.seconds) == (100, False, 60)
    assert (ours.promotion.floors["hybrid"].model, ours.promotion.rails.max_query_ms) == ("item-knn", 20)
    assert (ours.drift.action, ours.promotion.max_drop) == ("retrain", TenantPipeline().promotion.max_drop)
    assert read_by_pipeline(portal, "other") == TenantPipeline()
    assert get(portal, other)["search"]["minutes"] == TenantPipeline().search.minutes
    # What was shown can be sent back; nothing changes by that, and nothing is noted.
    put(portal, admin, shown)
    assert read_by_pipeline(portal, "acme") == ours
    assert put(portal, admin, {})["search"]["minutes"] == TenantPipeline().search.minutes  # a PUT replaces everything
    entries = portal.client.get("/api/audit", params={"action": "pipeline.changed"}, headers=admin).json()["data"]
    assert len(entries) == 2
    detail = entries[1]["detail"]
    assert detail["search.minutes"] == {"before": 20, "after": 5}
    assert {"alerts.emails", "promotion.floors", "drift.action"} < set(detail["changed"])
    assert "ops@" not in json.dumps(entries)


def test_only_administrators_of_the_tenant_see_and_change_them(portal: Portal) -> None:
    portal.admin()
    portal.person("member@acme.example")
    for headers, status in (
        ({}, 401),
        (portal.tenants.key("acme"), 401),
        (portal.login("member@acme.example"), 403),
    ):
        for answer in (portal.client.get(PATH, headers=headers), portal.client.put(PATH, json={}, headers=headers)):
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
    assert portal.sql("SELECT count(*) FROM pipeline_settings") == [(0,)]


def test_a_secret_is_shown_once_where_it_is_made_and_never_again(portal: Portal, lines: Any) -> None:
    admin = portal.admin()
    made = put(portal, admin, WEBHOOK)["alerts"]
    assert (made["webhookSecretSet"], made["webhookSecret"][:6]) == (True, "whsec_")
    assert get(portal, admin)["alerts"] == {**made, "webhookSecret": None}
    put(portal, admin, {**WEBHOOK, "search": {"minutes": 6}})  # without a secret: it stays
    assert portal.sql("SELECT webhook_secret FROM pipeline_settings") == [(made["webhookSecret"],)]
    sent = put(portal, admin, {"alerts": {**WEBHOOK["alerts"], "webhookSecret": SECRET}})["alerts"]
    assert (sent["webhookSecretSet"], sent["webhookSecret"]) == (True, None)
    put(portal, admin, {"alerts": {"webhookSecret": f"{SECRET}é"}}, 400)
    assert tables_with(portal.tenants.url, SECRET) == {"pipeline_settings"}
    assert portal.sql("SELECT settings::text LIKE %s FROM pipeline_settings", f"%{SECRET}%") == [(False,)]
    trail = portal.client.get("/api/audit", headers=admin).text
    (boss,) = (row[0] for row in portal.sql("SELECT id FROM users WHERE tenant_id = 'acme'"))
    export = portal.client.get(f"/api/users/{boss}/export", headers=admin).text
    told = f"{trail}{export}{json.dumps(lines())}{read_by_pipeline(portal, 'acme')!r}"
    assert "alerts.webhookSecret" in trail
    for hidden in (SECRET, made["webhookSecret"]):
        assert hidden not in told
    assert "t0psecret" not in trail
    assert put(portal, admin, {})["alerts"]["webhookSecretSet"] is False  # it goes with the webhook
    assert portal.sql("SELECT webhook_secret FROM pipeline_settings") == [(None,)]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"alerts": {"emails": ["ops@acme.example\nBcc: all@acme.example"]}}, "alerts.emails.0"),
        ({"alerts": {"emails": ["ops@acme.example\n"]}}, "alerts.emails.0"),
        ({"alerts": {"emails": [f"{n}@acme.example" for n in range(6)]}}, "alerts.emails"),
        ({"alerts": {"webhookUrl": "http://169.254.169.254/latest/meta-data"}}, "alerts.webhookUrl"),
        ({"alerts": {"webhookUrl": "http://[::ffff:127.0.0.1]/"}}, "alerts.webhookUrl"),
        ({"alerts": {"webhookUrl": "https://user:password@ops.example.com/"}}, "alerts.webhookUrl"),
        ({"alerts": {"webhookUrl": "file:///etc/passwd"}}, "alerts.webhookUrl"),
        ({"alerts": {"webhookSecret": "hunter2"}}, "alerts.webhookSecret"),
        ({"alerts": {"events": ["all"]}}, "alerts.events.0"),
        ({"search": {"minutes": 0}}, "search.minutes"),
        ({"search": {"minutes": "20"}}, "search.minutes"),
        ({"promotion": {"metric": "ndcg@5"}}, "promotion.metric"),
        ({"promotion": {"floors": {f"f{n}": {} for n in range(33)}}}, "promotion.floors"),
        ({"budget": {}}, "budget"),
    ],
)
def test_what_is_out_of_bounds_is_refused_and_not_repeated(portal: Portal, body: Any, field: str) -> None:
    answer = put(portal, portal.admin(), body, 400)
    assert answer["errors"][0]["field"] == field
    assert "hunter2" not in json.dumps(answer)


def test_an_erased_user_gets_no_more_alerts_and_an_export_tells_of_them(portal: Portal) -> None:
    admin = portal.admin()
    user = portal.person("ann@acme.example")
    put(portal, admin, {"alerts": {"emails": ["Ann@acme.example", "ops@acme.example"]}})
    export = portal.client.get(f"/api/users/{user}/export", headers=admin).json()
    assert [set(row) for row in export["alertAddresses"]] == [{"updatedAt"}]
    assert portal.client.delete(f"/api/users/{user}", headers=admin).status_code == 204
    assert get(portal, admin)["alerts"]["emails"] == ["ops@acme.example"]
    assert tables_with(portal.tenants.url, "Ann@acme.example") == set()


def test_metrics_and_baselines_that_can_be_named_are_those_that_there_are() -> None:
    assert set(get_args(DecidingMetric)) <= set(METRICS)
    assert set(get_args(FloorModel)) == {RANDOM, *BASELINES}
