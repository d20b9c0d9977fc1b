"""The demo's scenarios: two that are live and a draft, to try and to change (`docs/scenarios.md`)."""

from typing import Any

import httpx

SCENARIOS: tuple[dict[str, Any], ...] = (
    {
        "id": "front-page",
        "name": "Front page",
        "status": "live",
        "source": "hybrid",
        "boosts": [{"filter": {"genres": "Comedy"}, "factor": 1.5}],
        "pins": [{"position": 1, "item": "313"}],  # Titanic, the film of the winter that the data set ends in
        "caps": [{"field": "genres", "atMost": 3}],
        "fallbacks": ["popular"],
    },
    {
        "id": "family-night",
        "name": "Family night",
        "status": "live",
        "source": "hybrid",
        "filter": {"genres": {"$in": ["Animation", "Children's"]}},
        "exclusions": {"filter": {"genres": {"$in": ["Horror", "Thriller"]}}},
        "diversity": 0.3,
        "fallbacks": ["popular"],
    },
    {
        "id": "late-show",
        "name": "Late show",
        "status": "draft",
        "source": "hybrid",
        "expression": {"$add": [1, {"$multiply": [0.01, {"$subtract": [{"$number": "year", "missing": 1990}, 1990]}]}]},
        "boosts": [
            {
                "filter": {"genres": {"$in": ["Horror", "Thriller"]}},
                "factor": 2.0,
                "windows": [
                    {
                        "days": ["fri", "sat"],
                        "hours": {"from": "21:00", "to": "03:00"},
                        "timeZone": "America/Chicago",
                    }
                ],
            }
        ],
        "rotation": {"halfLifeHours": 48.0},
    },
)


def create_scenarios(api_url: str, email: str, password: str) -> None:
    """Create those that are not there. Raises httpx.HTTPStatusError where the API refuses one.

    api_url: the running API's. email, password: an administrator's.
    """
    with httpx.Client(base_url=api_url, timeout=60) as client:
        answer = client.post("/api/auth/login", json={"email": email, "password": password}).raise_for_status()
        headers = {"Authorization": f"Bearer {answer.json()['token']}"}
        for scenario in SCENARIOS:
            made = client.post("/api/scenarios", json=scenario, headers=headers)
            if made.status_code != httpx.codes.CONFLICT:  # an interrupted call has made it
                made.raise_for_status()
