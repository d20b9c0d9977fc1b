"""Users who are held out get popular items, and always the same users are."""

import pytest

from api.recommendations.holdout import is_held_out
from tests.fixtures.backend import Backend

USERS = [f"user-{number}" for number in range(4_000)]


def test_a_share_holds_out_so_many_users_and_a_larger_one_the_same_and_more() -> None:
    held = {share: {user for user in USERS if is_held_out("acme", user, share)} for share in (0.0, 0.1, 0.5, 1.0)}
    assert (held[0.0], held[1.0]) == (set(), set(USERS))
    assert held[0.1] < held[0.5]
    for share in (0.1, 0.5):
        assert len(held[share]) / len(USERS) == pytest.approx(share, abs=0.03)
    others = {user for user in USERS if is_held_out("other", user, 0.5)}
    assert len(others & held[0.5]) / len(USERS) == pytest.approx(0.25, abs=0.03)  # tenants draw apart


def test_who_is_held_out_is_answered_by_popularity_and_the_others_by_the_model(films: Backend) -> None:
    share = 0.4
    films.sql("UPDATE tenants SET holdout_share = %s WHERE id = %s", [share, films.tenant_id])
    users = {held: [u for u in USERS if is_held_out(films.tenant_id, u, share) is held][:3] for held in (True, False)}
    for held, of_group in users.items():
        for user in of_group:
            body = {"userId": user, "count": 3, "algorithm": "collaborative", "diversity": 0.5}
            answer = films.client.post("/api/v1/recommend", json=body)
            assert answer.status_code == 200, answer.text
            assert ({each["algorithm"] for each in answer.json()} == {"popularity"}) is held
            assert ("X-Model-Release" in answer.headers) is not held
            label = answer.headers.get("X-Recommendation-Degraded")
            assert label == ("holdout; ignored=diversity" if held else None)
    films.client.portal.call(films.client.app.state.recommendations.impressions.flush)  # type: ignore[union-attr,attr-defined]
    found = films.sql(
        "SELECT user_id, holdout, algorithm, release IS NULL, scenario, scenario_version, milliseconds > 0 "
        "FROM impressions"
    )
    held_row, row = (True, "popularity", True, None, None, True), (False, "collaborative", False, None, None, True)
    assert sorted(found) == sorted([(u, *held_row) for u in users[True]] + [(u, *row) for u in users[False]])
