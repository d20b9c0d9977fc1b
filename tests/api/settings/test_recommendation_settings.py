"""`/api/settings/recommendations`: the share of users that a tenant's administrators hold out."""

from typing import Any

from tests.fixtures.portal import Portal

PATH = "/api/settings/recommendations"


def test_an_administrator_sets_the_share_of_its_tenant_and_it_is_noted(portal: Portal) -> None:
    admin, other = portal.admin(), portal.admin("other")

    def put(body: Any, headers: dict[str, str] = admin) -> tuple[int, Any]:
        answer = portal.client.put(PATH, json=body, headers=headers)
        return answer.status_code, answer.json()

    assert portal.client.get(PATH, headers=admin).json() == {"holdoutShare": 0.0}
    assert put({"holdoutShare": 0.05}) == (200, {"holdoutShare": 0.05})
    assert put({"holdoutShare": 0.05})[0] == 200  # changes nothing, and is not noted
    assert portal.client.get(PATH, headers=other).json() == {"holdoutShare": 0.0}
    for wrong in ({"holdoutShare": 1.1}, {"holdoutShare": -0.1}, {"holdoutShare": "0.1"}, {"share": 0.1}, []):
        assert put(wrong)[0] == 400
    portal.person("member@acme.example")
    assert put({}, portal.login("member@acme.example"))[0] == 403
    assert put({}) == (200, {"holdoutShare": 0.0})
    trail = portal.client.get("/api/audit", params={"action": "recommendations.changed"}, headers=admin).json()["data"]
    assert [entry["detail"]["holdoutShare"] for entry in trail] == [
        {"before": 0.05, "after": 0.0},
        {"before": 0.0, "after": 0.05},
    ]
