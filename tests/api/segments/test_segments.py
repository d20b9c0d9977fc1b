"""`/api/segments`: an administrator names groups of users and items, and the pipeline finds their members."""

from typing import Any

import pytest

from api.segments import service
from tests.fixtures.portal import Portal

TWICE = {
    "name": "Bought twice",
    "kind": "users",
    "filter": {"kind": "food"},
    "behaviour": {"interactionTypes": ["purchase"], "atLeast": 2, "days": 30},
}


def create(portal: Portal, admin: dict[str, str], body: Any = TWICE, status: int = 201) -> Any:
    answer = portal.client.post("/api/segments", json=body, headers=admin)
    assert answer.status_code == status, answer.text
    return answer.json()


def measured(portal: Portal, id_: str, *users: str) -> None:
    """What the pipeline writes."""
    portal.sql("UPDATE segments SET size = %s, measured_at = now() WHERE id = %s", len(users), id_)
    portal.sql(
        "INSERT INTO item_lists (tenant_id, source, of_item, item_ids, scores) VALUES ('acme', %s, '', '{a}', '{0.5}')",
        f"segment:{id_}",
    )
    for user in users:
        portal.sql("INSERT INTO segment_users (tenant_id, segment_id, user_id) VALUES ('acme', %s, %s)", id_, user)


def members(portal: Portal) -> list[tuple[Any, ...]]:
    return portal.sql("SELECT user_id FROM segment_users ORDER BY 1")


def test_a_segment_is_made_read_replaced_and_deleted(portal: Portal) -> None:
    admin, client = portal.admin(), portal.client
    made = create(portal, admin)
    assert {name: made[name] for name in TWICE} == TWICE
    assert (made["size"], made["measuredAt"]) == (None, None)
    path = f"/api/segments/{made['id']}"
    assert client.get(path, headers=admin).json() == made
    page = client.get("/api/segments", headers=admin).json()
    assert (page["data"], page["total"]) == ([made], 1)
    member = portal.person("member@acme.example")
    measured(portal, made["id"], member)
    assert client.get(path, headers=admin).json()["size"] == 1
    items = {"name": "Food", "kind": "items", "filter": {"kind": "food"}}
    replaced = client.put(path, json=items, headers=admin).json()
    assert (replaced["kind"], replaced["behaviour"], replaced["size"]) == ("items", None, None)
    assert replaced["updatedAt"] > made["updatedAt"]
    assert members(portal) == [] and portal.sql("SELECT * FROM item_lists") == []
    measured(portal, made["id"], member)
    assert client.delete(path, headers=admin).status_code == 204
    assert client.get(path, headers=admin).status_code == client.delete(path, headers=admin).status_code == 404
    assert members(portal) == [] and portal.sql("SELECT * FROM item_lists") == []
    trail = client.get("/api/audit", params={"action": "segment"}, headers=admin).json()["data"]
    assert [entry["action"] for entry in trail] == ["segment.deleted", "segment.changed", "segment.created"]
    assert all(entry["detail"]["segment"] == made["id"] and entry["target"] == "acme" for entry in trail)
    assert "Bought twice" not in str(trail)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"kind": "shops"}, "kind"),
        ({"filter": {"$where": 1}}, "filter"),
        ({"behaviour": None}, None),
        ({"behaviour": {"interactionTypes": [], "days": 30}}, "behaviour.interactionTypes"),
        ({"behaviour": {"interactionTypes": ["stare"], "days": 30}}, "behaviour.interactionTypes.0"),
        ({"behaviour": {"interactionTypes": ["view"], "days": 366}}, "behaviour.days"),
        ({"behaviour": {"interactionTypes": ["view"], "days": 1, "atLeast": 0}}, "behaviour.atLeast"),
        ({"colour": "red"}, "colour"),
        ({"kind": "items", "filter": None, "behaviour": None}, None),
    ],
)
def test_a_segment_that_names_nobody_is_refused(portal: Portal, change: dict[str, Any], field: str | None) -> None:
    found = create(portal, portal.admin(), TWICE | change, 400)
    if field is not None:
        assert [error["field"] for error in found["errors"]] == [field]


def test_there_are_a_hundred_at_most(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_SEGMENTS", 2)
    admin = portal.admin()
    first = create(portal, admin)
    create(portal, admin)
    create(portal, admin, status=409)
    create(portal, portal.admin("other"))
    assert portal.client.delete(f"/api/segments/{first['id']}", headers=admin).status_code == 204
    create(portal, admin)


def test_only_an_administrator_of_the_tenant_reaches_them(portal: Portal) -> None:
    made = create(portal, portal.admin())
    portal.person("member@acme.example")
    others = {
        401: [{}, portal.tenants.key("acme")],
        403: [portal.login("member@acme.example")],
        404: [portal.admin("other")],
    }
    for status, credentials in others.items():
        for headers in credentials:
            path = f"/api/segments/{made['id']}"
            answers = [
                portal.client.get(path, headers=headers),
                portal.client.put(path, json=TWICE, headers=headers),
                portal.client.delete(path, headers=headers),
            ]
            assert [answer.status_code for answer in answers] == [status] * 3
    assert portal.sql("SELECT count(*) FROM segments") == [(1,)]


def test_an_erased_user_is_in_no_segment_and_an_export_names_them(portal: Portal) -> None:
    admin = portal.admin()
    made = create(portal, admin)
    gone, stays = portal.person("gone@acme.example"), portal.person("stays@acme.example")
    measured(portal, made["id"], gone, stays)
    exported = portal.client.get(f"/api/users/{gone}/export", headers=admin).json()["segments"]
    assert [(row["segmentId"], row["name"]) for row in exported] == [(made["id"], "Bought twice")]
    assert portal.client.delete(f"/api/users/{gone}", headers=admin).status_code == 204
    assert members(portal) == [(stays,)]
